"""Lowers the programs that ship with sdbuild, in `sdbuild/lowering/programs/`.

    python -m scripts.programs                    # those that are missing; drops what nobody uses
    python -m scripts.programs --again sd-1-5     # compares those of some checkpoints with new ones

They are those of published checkpoints, of which fine-tunes and files have the same architecture.
Each is lowered by the steps of a build, from its configs alone: no weights are needed. After a
change to trace or lower, or of the versions in constraints.txt, run it and commit what it writes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import lzma
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import CONFIGS, write_tokenizers
from sdbuild.checkpoints import normalize
from sdbuild.checkpoints.normalized import ARCHITECTURE, encode
from sdbuild.engine import build
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.process import read_job, write_result
from sdbuild.engine.shipped import PROGRAMS, RECORDS, Shipped
from sdbuild.engine.stage import stage
from sdbuild.engine.step import Step
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.store import Record, Store
from sdbuild.store.record import encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published checkpoint: the recipe that builds it, and settings that its programs are for.

    Attributes:
        configs: those of its networks, by folder; none for the models that are built in.
        settings: each a choice of values for some fields; all their combinations are built.
    """

    recipe: str
    settings: tuple[Mapping[str, tuple[str, ...]], ...] = ({},)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controlnet: Mapping[str, Any] = field(default_factory=dict)
    prediction: str = "epsilon"

    def words(self) -> Iterator[dict[str, str]]:
        """Yields the variables of each build."""
        for choices in self.settings:
            for values in product(*choices.values()):
                yield {"model": self.recipe, **dict(zip(choices, values, strict=True))}


_FIRST, _SECOND, _XL = (CONFIGS[name] for name in ("sd-1-5", "sd-2-1-base", "sdxl-base"))
_CONTROLNET = CONFIGS["sd-1-5-control"]["controlnet"]
_REFINER = {
    "unet": _XL["unet"] | {
        "block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24],
        "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "transformer_layers_per_block": 4,
    },
    "vae": _XL["vae"], "text_encoder_2": _XL["text_encoder_2"],
}
_OTHER = {"attention": ("split_einsum",)}
PUBLISHED = (
    Published(recipe="tiny-emoji"),
    Published(recipe="sd-1-5", configs=_FIRST),
    Published(recipe="sd-2-1-base", configs=_SECOND),
    Published(recipe="sdxl-base", configs=_XL),
    Published(recipe="sd-2-1", configs=_SECOND, prediction="v_prediction"),
    Published(recipe="tiny-emoji-control"),
    Published(recipe="sd-1-5", configs=_FIRST, settings=(_OTHER, {"target": ("iOS17",)})),
    Published(recipe="sd-2-1-base", configs=_SECOND, settings=(_OTHER, {"target": ("iOS17",)})),
    Published(recipe="sd-1-5", configs=_FIRST, settings=(
        {"batch": ("1",)}, {"size": ("512x768", "768x512")}, {"target": ("iOS18",)})),
    Published(recipe="sd-1-5", configs=_FIRST, controlnet=_CONTROLNET),
    Published(recipe="sdxl-base", configs=_XL, settings=({"target": ("iOS17",)},)),
    Published(recipe="sdxl-turbo", configs=_XL),
    Published(recipe="sd-1-5-inpaint",
              configs=_FIRST | {"unet": _FIRST["unet"] | {"in_channels": 9}}),
    Published(recipe="sd-1-5-lcm",
              configs=_FIRST | {"unet": _FIRST["unet"] | {"time_cond_proj_dim": 256}}),
    Published(recipe="sdxl-base", configs=_XL, settings=(_OTHER,)),
    Published(recipe="sdxl-refiner", configs=_REFINER),
)


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", help="only those of these recipes")
    parser.add_argument("--again", action="store_true", help="compare, write nothing")
    parser.add_argument("--list", action="store_true", help="list what is missing, write nothing")
    given = parser.parse_args(arguments)
    build.run_step = forked
    chosen = [p for p in PUBLISHED if not given.recipes or p.recipe in given.recipes]
    kept: dict[str, Record] = {}
    differing = 0
    with tempfile.TemporaryDirectory(prefix="sdbuild-programs-") as folder:
        store = Store(Path(folder) / "store")
        for number, published in enumerate(chosen):
            source = Path(folder) / str(number)
            write_configs(published, source)
            for words in published.words():
                for step, builder in programs(published, words, source, store):
                    if given.again:
                        differing += not is_same(builder, step)
                        continue
                    known = builder.state(step.name).record
                    if known is None and given.list:
                        print("missing", words, step.name)
                        continue
                    for record in made(builder, step):
                        kept[record.key] = record
                    if known is None:
                        write(store, list(kept.values()), is_whole=False)
        if not given.again and not given.list:
            write(store, list(kept.values()), is_whole=not given.recipes)
    return 1 if differing else 0


def forked(
    kind: str, job: Mapping[str, Any], work: Path, watch: Any, *, is_forked: bool = True,
) -> tuple[dict, int]:
    """Runs a stage as `run_step` does, in a fork of this process: what it imports is there."""
    for name in ("lowering.once", "lowering.graph", "models.network", "models.unet"):
        importlib.import_module(f"sdbuild.{name}")
    (work / "job.json").write_text(json.dumps(job), "utf-8")
    child = os.fork()
    if not child:
        write_result(work, {"facts": stage(kind).run(read_job(work)) or {}})
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{kind} failed: what it said stands above")
    return json.loads((work / "result.json").read_text())["facts"], usage.ru_maxrss << 10


def write_configs(published: Published, folder: Path) -> None:
    """Writes the files from which a checkpoint's architectures are inferred, without weights."""
    for part, config in published.configs.items():
        _write_part(folder / part, config)
    if published.controlnet:
        _write_part(folder / "control", published.controlnet)
    if not published.configs:
        return
    write_tokenizers(published.recipe, folder, has_two="text_encoder_2" in published.configs)
    name = "scheduler/scheduler_config.json"
    config = json.loads((BUILT_IN / "tiny-emoji" / name).read_text("utf-8"))
    (folder / "scheduler").mkdir()
    (folder / name).write_text(json.dumps(config | {"prediction_type": published.prediction}))


def _write_part(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    stem = "model" if "architectures" in config else "diffusion_pytorch_model"
    (folder / f"{stem}.safetensors").write_bytes(b"")


def programs(
    published: Published, words: Mapping[str, str], source: Path, store: Store
) -> Iterator[tuple[Step, Builder]]:
    """Yields the lower step of each network of a build, with a builder in which its architecture is
    there."""
    given = dict(words)
    if published.configs:
        given["source"] = str(source)
    if published.controlnet:
        given["controlnet"] = str(source / "control")
    builder = Builder(plan(load(given)), store)
    for step in builder.plan.steps.values():
        if step.kind == "download" and f"lower:{step.component}" in builder.plan.steps:
            _put_architecture(builder, step)
    for step in builder.plan.steps.values():
        if step.kind == "lower":
            yield step, builder


def _put_architecture(builder: Builder, step: Step) -> None:
    """Puts what a download would write, but for the weights, in the place of its artifact."""
    assert step.source is not None
    checkpoint = builder.checkpoints.resolve(step.source)
    found = normalize.architecture_of(checkpoint, step.reads, step.params)  # type: ignore[arg-type]
    state = builder.state(step.name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ARCHITECTURE).write_bytes(encode(found))
        builder.store.put(Path(folder), Record(
            key=state.known_key, step=step.name, ingredients=state.ingredients, tree=(),
            seconds=0, peak_bytes=0, made_at="", host=""))


def made(builder: Builder, step: Step) -> list[Record]:
    """Returns the records of a program and of its graph; lowers it unless it is there."""
    names = [f"trace:{step.component}", step.name]
    for name in names:
        if not builder.is_made(name):
            print(f"{name:24}{builder.plan.recipe.variant}", flush=True)
            builder.make(name)
    return [builder.state(name).record for name in names]  # type: ignore[misc]


def is_same(builder: Builder, step: Step) -> bool:
    """Whether a program is what ships, when it is lowered once more."""
    shipped = builder.state(step.name).record
    own = Builder(plan(replace(
        builder.plan.recipe, packaging=replace(builder.plan.recipe.packaging, lower="here"))),
        builder.store)
    found = own.make_all(step.name)
    is_equal = shipped is not None and found.tree == shipped.tree
    print(f"{'same' if is_equal else 'DIFFERS':8}{step.name:24}{builder.plan.recipe.variant}",
          flush=True)
    return is_equal


def write(store: Store, records: list[Record], *, is_whole: bool) -> None:
    """Writes the records and the files of their programs; drops all others if they are whole."""
    target = Shipped(PROGRAMS)
    before = {} if is_whole else {r.key: r for r in target.records.values()}
    kept = before | {
        r.key: replace(r, origin="", host="", made_at=r.made_at[:10], seconds=0, peak_bytes=0)
        for r in records}
    target.folder.joinpath("objects").mkdir(parents=True, exist_ok=True)
    wanted = set()
    for record in kept.values():
        for entry in record.tree if record.step.startswith("lower:") else ():
            path = target.object(entry.digest)
            wanted.add(path)
            if not path.exists():
                content = store.object(entry.digest).read_bytes()
                path.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    for path in set(target.folder.glob("objects/*")) - wanted:
        path.unlink()
    rows = [json.loads(encoded(record)) for _, record in sorted(kept.items())]
    (target.folder / RECORDS).write_text(json.dumps({"records": rows}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
