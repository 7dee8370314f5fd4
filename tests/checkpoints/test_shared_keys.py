"""Two steps that may give different bytes never share a key, and steps that may share one do."""

import hashlib
import itertools
import json
import shutil
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from sdbuild.engine.plan import plan
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.stage import Job, stage
from sdbuild.engine.step import Step, ingredients
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.store import Store, key
from tests.single_files import config_of, single_file, small_checkpoint, write

TINY_EMOJI = BUILT_IN / "tiny-emoji"
NEUTRAL = {"places", "beside", "config", "facts", "locked", "output", "resources", "virtual"}
"""Arguments of a job that its key leaves out: locations, and digests that it has as `source` or
`inputs`."""


def joined(folder, states, kind):
    parts = [(states[part], config_of(folder, part)) for part in ("unet", "vae")]
    return single_file(*parts, (states["text_encoder"], kind))


def tiny_states():
    return {part: load_file(next((TINY_EMOJI / part).glob("*.safetensors")))
            for part in ("unet", "vae", "text_encoder")}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Words for checkpoints in every form, and two autoencoders and LoRAs, by variable."""
    folder = tmp_path_factory.mktemp("places")
    sources = []
    for kind in ("clip", "open_clip"):
        made, states = small_checkpoint(folder / kind, kind)
        file = write(folder / f"{kind}.safetensors", joined(made, states, kind))
        sources += [{"source": file}, {"source": file, "config": TINY_EMOJI}]
    tiny = write(folder / "tiny.safetensors", joined(TINY_EMOJI, tiny_states(), "clip"))
    other = shutil.copytree(TINY_EMOJI, folder / "other")
    config = config_of(other, "vae") | {"scaling_factor": 0.5}
    (other / "vae" / "config.json").write_text(json.dumps(config))
    for number in (1, 2):
        layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        save_file({f"{layer}.lora_A.weight": torch.full((2, 96), float(number)),
                   f"{layer}.lora_B.weight": torch.full((96, 2), 0.01)},
                  folder / f"lora{number}.safetensors")
    return {
        "source": [{}, {"source": other}, {"source": tiny, "config": TINY_EMOJI}, *sources],
        "vae": [{"vae": folder / "clip.safetensors"}, {"vae": other / "vae"}, {"vae": other}],
        "prediction_type": [{"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}],
        "lora": [{}, *({"lora": f"{folder}/lora{number}.safetensors:{strength}"}
                       for number in (1, 2) for strength in (1, 0.5))],
    }


def combinations(places, is_small):
    """Command lines: each form with each autoencoder, and with each of the other words; or those
    of small checkpoints with every second of them."""
    sources = places["source"][1:3] if is_small else places["source"]
    others = [*places["vae"], *places["prediction_type"], *places["lora"]]
    for source, other in itertools.product(sources, others[1::2] if is_small else others):
        yield words_of(source | other)


def words_of(words):
    return {"model": "tiny-emoji"} | {name: str(value) for name, value in words.items()}


class Run:
    """Runs the steps of plans that read sources; each job once, each output by its key."""

    def __init__(self, folder):
        self.folder = folder
        self.checkpoints = Checkpoints(Store(folder / "cache"))
        self.numbers = itertools.count()
        self.outputs = {}
        self.by_key = {}

    def plan(self, words):
        made = {}
        for step in plan(load(words)).steps.values():
            if step.source is None:
                continue
            try:
                made[step.name] = self.step(step, {
                    name: made[source.step] for name, source in step.inputs.items()
                })
            except (SourceError, KeyError):
                continue  # what cannot be read has no bytes
        return made

    def step(self, step, inputs):
        found = ingredients(step, {name: digest(path) for name, path in inputs.items()},
                            self.checkpoints.digests(step))
        job = {"params": dict(step.params), "inputs": inputs, **self.checkpoints.job(step)}
        asked = repr((step.kind, sorted(job.items())))
        if asked not in self.outputs:
            output = self.folder / f"out{next(self.numbers)}"
            output.mkdir()
            stage(step.kind).run(Job(**job, output=output))
            self.outputs[asked] = output
        self.by_key.setdefault(key(found), {})[digest(self.outputs[asked])] = step.name
        return self.outputs[asked]


def digest(folder):
    hasher = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


@pytest.mark.parametrize(("is_small", "least"), [
    pytest.param(True, 10, id="small"),
    pytest.param(False, 60, id="all", marks=pytest.mark.slow),
])
def test_no_two_steps_that_give_different_bytes_share_a_key(places, tmp_path, is_small, least):
    run = Run(tmp_path)

    for words in combinations(places, is_small):
        run.plan(words)

    shared = [list(found.values()) for found in run.by_key.values() if len(found) > 1]
    assert shared == []
    assert len(run.outputs) > least


def test_a_unet_and_a_text_encoder_of_one_file_have_keys_of_their_own(places, tmp_path):
    run = Run(tmp_path)

    made = run.plan(words_of(places["source"][3]))

    assert len({digest(path) for path in made.values()}) == len(made) == len(run.by_key) == 5


def test_all_that_a_job_holds_is_in_the_key_but_for_where_things_are():
    """A job is all that a stage sees: what is in the key decides the rest of it."""
    found = ingredients(Step(kind="download", component="unet", reads=("unet",)), {}, {})

    assert {field.name for field in fields(Job)} - found.keys() == NEUTRAL
    for name, other in (("params", {"a": 1}), ("inputs", {"a": "d"}), ("reads", ["vae"])):
        assert key(found | {name: other}) != key(found)


def test_steps_that_read_no_source_are_shared_by_all_checkpoints_of_an_architecture(places):
    """Their keys hold digests of what they are made from, never a place or a name."""
    plans = [plan(load(words_of(words))) for words in places["source"]]

    for name in ("trace:unet", "lower:unet", "convert:unet", "palettize:unet", "compile:unet"):
        steps = [made.steps[name] for made in plans]
        assert len({key(ingredients(s, dict.fromkeys(s.inputs, "d"), {})) for s in steps}) == 1
