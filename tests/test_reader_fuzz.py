"""Readers of files from outside, on mutated documents: read or refused, never a traceback.

Documents begin sound and lose a value, a type, a name, their nesting or some bytes. A failure
names the target and the number of the input, which makes the same input again.
"""

import copy
import json
import random
import struct
from pathlib import Path

import pytest

from sdbuild.base.digest import digest
from sdbuild.base.errors import SDBuildError
from sdbuild.base.parsing import json_value, toml_table
from sdbuild.bundle.manifest import load_bundle
from sdbuild.checkpoints import layout, normalize, resources, sidecar_configs
from sdbuild.checkpoints.schedule import check_schedule
from sdbuild.mil.files.package import model_file
from sdbuild.recipe.lockfile import parsed
from sdbuild.recipe.recipe import load
from sdbuild.safetensors import tensors
from sdbuild.store import Entry, Record
from sdbuild.store.record import decoded, encoded
from sdbuild.store.remote import envelope

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny-emoji"
ODD = (
    None, True, False, 0, -1, 1.5, 1e300, 10**10, 2**63, 2**200, 10**4500, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "\x1b[2J", "../..", "/", "..", "a" * 300, "9" * 5000,
    "²", [], {}, [[]], ["a"], [1, 2], {"a": 1}, [None], "none", "v_prediction",
)


def paths(value, way=()):
    """The ways to all values inside of one."""
    yield way
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for name, part in inner:
        yield from paths(part, (*way, name))


def mutated(document, chance):
    """A document with some of its values replaced, removed, renamed or nested."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        *way, last = chance.choice([p for p in paths(document) if p] or [("a",)])
        holder = document
        for name in way:
            holder = holder[name]
        how = chance.randrange(5)
        if how == 0 and isinstance(holder, dict):
            holder[chance.choice(["", "a", "\0", "9" * 5000, "²", "-1", "__metadata__"])] = (
                holder.pop(last, None))
        elif how == 1 and last in (holder if isinstance(holder, dict) else range(len(holder))):
            del holder[last]
        elif how == 2 and last in (holder if isinstance(holder, dict) else range(len(holder))):
            for _ in range(chance.choice((1, 3, 100))):
                holder[last] = [holder[last]] if chance.random() < 0.5 else {"a": holder[last]}
        elif isinstance(holder, dict) or last < len(holder):
            holder[last] = copy.deepcopy(chance.choice(ODD))
    return document


def spoiled(content, chance):
    """Bytes with some of them changed, doubled, dropped or cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
        place = chance.randrange(len(content) + 1)
        end = place + chance.randrange(20)
        how = chance.randrange(4)
        if how == 0:
            content[place:end] = chance.randbytes(chance.randrange(4))
        elif how == 1:
            content[place:place] = content[place:end] * chance.choice((1, 2, 500))
        elif how == 2:
            del content[place:]
        else:
            content[place:end] = chance.choice((b"[" * 2000, b"\xff", b"<html>", b'"', b"NaN"))
    return bytes(content)


def written(document):
    """As JSON; beyond what `json` writes a number is written as it can be."""
    try:
        return json.dumps(document).encode()
    except ValueError:  # a number of more than 4,300 digits
        return b"[" + b"1" * 5000 + b"]"


def toml(document):
    """As TOML, tables first level deep; what TOML has not is written all the same."""
    tables = {k: v for k, v in document.items() if isinstance(v, dict)}
    lines = [f"{json.dumps(k)} = {line(v)}" for k, v in document.items() if k not in tables]
    for name, table in tables.items():
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{json.dumps(k)} = {line(v)}" for k, v in table.items()]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def line(value):
    try:
        return json.dumps(value)
    except ValueError:
        return "9" * 5000


RECIPE = {
    "family": "sd", "source": "x", "size": 64, "components": ["unet", "text_encoder"],
    "quant": 6, "batch": 2, "attention": "original", "chunk": 1, "target": "iOS16",
    "palettize": ["unet"], "vae": "y.safetensors", "lora": ["a.safetensors:0.5"],
    "draw": {"prompt": "a fox", "seed": 1, "steps": 20, "guidance": 7.5, "scheduler": "dpm"},
    "floors": {"unet": {"none": 45, "reason": "measured"}},
    "lock": {"unet": {"weights.safetensors": "0" * 64}},
}
UNET = json.loads((TINY / "unet" / "config.json").read_text())
TEXT = json.loads((TINY / "text_encoder" / "config.json").read_text())
VAE = json.loads((TINY / "vae" / "config.json").read_text())
SCHEDULER = json.loads((TINY / "scheduler" / "scheduler_config.json").read_text())
INDEX = {"metadata": {"total_size": 10},
         "weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}
WORDS = {"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5}
TOKENIZER = {"model": {"type": "BPE", "vocab": WORDS, "merges": [["a", "b</w>"]],
                       "end_of_word_suffix": "</w>", "continuing_subword_prefix": ""}}
TOKENIZER_CONFIG = {"pad_token": {"content": "<pad>"},
                    "added_tokens_decoder": {"9": {"content": "<pad>", "special": True}}}
HEADER = {"__metadata__": {"format": "pt"},
          "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
          "b": {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]}}
MANIFEST = {
    "schema": 1, "name": "tiny", "family": "sd", "width_px": 64, "height_px": 64,
    "attention": "original", "target": "iOS16", "scale_factor": 0.18215, "pad_token": "a",
    "prediction_type": "epsilon", "scheduler": SCHEDULER, "draw": {"prompt": "a", "steps": 2},
    "components": {"unet": {"models": ["Unet.mlmodelc"], "nbits": None}},
    "files": {"file": [1, "0" * 32]}, "made_from": [],
}
PACKAGE = {"fileFormatVersion": "1.0.0", "rootModelIdentifier": "A",
           "itemInfoEntries": {"A": {"path": "com.apple.CoreML/model.mlmodel", "name": "m"}}}
INGREDIENTS = {"kind": "trace", "version": 1, "params": {}, "inputs": {}, "tools": {}, "source": {}}
KEY = digest("step", INGREDIENTS)
RECORD = Record(key=KEY, step="trace:unet", ingredients=INGREDIENTS, seconds=1.0, peak_bytes=1,
                tree=(Entry("a", "0" * 32, 3),), made_at="now", host="here", facts={"a": 1})


def recipe(folder, chance):
    path = folder / "mine.toml"
    path.write_bytes(spoiled(toml(mutated(RECIPE, chance)), chance))
    load({"model": str(path)})


def config(folder, chance):
    part, document = chance.choice((("unet", UNET), ("text_encoder", TEXT), ("vae", VAE)))
    found = layout.config("config.json", spoiled(written(mutated(document, chance)), chance))
    normalize.architecture(part, found)
    normalize.latents(part, found)


def index(folder, chance):
    names = layout.shard_names("x", "unet/i.json", spoiled(written(mutated(INDEX, chance)), chance))
    assert all(Path(name).parent == Path("unet") and name.endswith("s") for name in names)


def scheduler(folder, chance):
    content = spoiled(written(mutated(SCHEDULER, chance)), chance)
    sidecar_configs.prediction({resources.SCHEDULER: content}, {})
    check_schedule(json_value(content, "x", has_infinities=True), "x", SDBuildError)


def tokenizer(folder, chance):
    sidecar_configs.check_tokenizer(resources.two_files(
        "x", spoiled(written(mutated(TOKENIZER, chance)), chance)))


def padding(folder, chance):
    sidecar_configs.padding({
        resources.VOCABULARY: written(mutated(WORDS | {"<pad>": 9}, chance)),
        resources.TOKENIZER_CONFIG: spoiled(written(mutated(TOKENIZER_CONFIG, chance)), chance),
    }, {})


def merges(folder, chance):
    sidecar_configs.check_tokenizer({
        resources.VOCABULARY: json.dumps(WORDS).encode(),
        resources.MERGES: spoiled(b"#version: 0.2\na b</w>\n", chance),
    })


def safetensors(folder, chance):
    path = folder / "a.safetensors"
    header = written(mutated(HEADER, chance))
    path.write_bytes(spoiled(struct.pack("<Q", len(header)) + header + bytes(24), chance))
    found = tensors.table([path])
    tensors.metadata(path)
    assert sum(len(chunk) for t in found.values() for chunk in t.chunks()) <= 48


def bundle(folder, chance):
    (folder / "file").write_bytes(b"a")
    (folder / "manifest.json").write_bytes(spoiled(written(mutated(MANIFEST, chance)), chance))
    load_bundle(folder)


def package(folder, chance):
    (folder / "Manifest.json").write_bytes(spoiled(written(mutated(PACKAGE, chance)), chance))
    model_file(folder)


def record(folder, chance):
    document = json.loads(encoded(RECORD))
    try:
        decoded(spoiled(written(mutated(document, chance)), chance), KEY)
    except (ValueError, TypeError, KeyError, AttributeError):  # as it says
        return


def shared_record(folder, chance):
    document = json.loads(envelope.encoded(
        envelope.Shared(record=RECORD, sha256={"0" * 32: "0" * 64}), ""))
    try:
        envelope.decoded(spoiled(written(mutated(document, chance)), chance), KEY, INGREDIENTS,
                     chance.choice(("", "secret")))
    except envelope.Unsound:
        return


def lock(folder, chance):
    content = spoiled(toml(mutated(RECIPE["lock"] | {"commits": {"hub:a/b": "0" * 40}}, chance)),
                      chance)
    parsed(toml_table(content, "x"), "x")


TARGETS = (recipe, config, index, scheduler, tokenizer, padding, merges, safetensors, bundle,
           package, record, shared_record, lock)


def run(target, folder, count):
    for number in range(count):
        chance = random.Random(f"{target.__name__} {number}")
        try:
            target(folder, chance)
        except SDBuildError as error:
            assert str(error), (target.__name__, number)
        except Exception as error:
            raise AssertionError(f"{target.__name__}, input {number}: {error!r}") from error


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_a_mutated_document_is_read_or_refused(target, tmp_path):
    run(target, tmp_path, 150)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_a_hundred_thousand_mutated_documents_are_read_or_refused(target, tmp_path):
    run(target, tmp_path, 7_700)
