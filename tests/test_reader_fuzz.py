"""Readers of files from outside, on mutated documents: read or refused, never a traceback.

Documents begin sound and lose a value, a type, a name, their nesting or some bytes. A failure
names the target and the number of the input, which makes the same input again.
"""

import contextlib
import copy
import io
import json
import math
import random
import struct
from pathlib import Path

import pytest

from sdbuild.base.digest import digest
from sdbuild.base.errors import SDBuildError
from sdbuild.base.parsing import json_value, toml_table
from sdbuild.base.paths import outside_path
from sdbuild.bundle.contract import violations
from sdbuild.bundle.manifest import load_bundle
from sdbuild.checkpoints import (
    layout,
    normalize,
    open_checkpoint,
    resources,
    sidecar_configs,
)
from sdbuild.checkpoints import links as checkpoint_links
from sdbuild.checkpoints.loras import lora as loras
from sdbuild.checkpoints.normalized import read_architecture
from sdbuild.checkpoints.schedule import check_schedule
from sdbuild.cli.main import main
from sdbuild.lowering.lowered import read_bindings
from sdbuild.mil.files.compiled import read_compiled
from sdbuild.mil.files.coremldata import unpack_description
from sdbuild.mil.files.package import model_file
from sdbuild.recipe.fields import VARIABLES
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
XL = Path(__file__).parent / "fixtures" / "configs" / "stable-diffusion-xl-base-1.0"
XL_UNET = json.loads((XL / "unet" / "config.json").read_text())
XL_TEXT = json.loads((XL / "text_encoder_2" / "config.json").read_text())
HALF_UNET = {
    "input_blocks.0.0.weight": [64, 4, 3, 3], "time_embed.0.weight": [8, 64],
    "label_emb.0.0.weight": [8, 2816], "input_blocks.1.0.in_layers.2.weight": [64, 64, 3, 3],
    "input_blocks.2.0.op.weight": [64, 64, 3, 3], "input_blocks.3.1.proj_in.weight": [64, 64],
    "input_blocks.3.0.in_layers.2.weight": [128, 64, 3, 3],
    "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight": [64, 2048],
    "middle_block.1.proj_in.weight": [128, 128],
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": [128, 2048],
}
XL_FILE = {
    **{f"model.diffusion_model.{name}": shape for name, shape in (HALF_UNET | {
        "output_blocks.0.0.in_layers.2.weight": [128, 128, 3, 3],
        "output_blocks.0.1.transformer_blocks.0.attn2.to_k.weight": [128, 2048],
        "output_blocks.1.1.conv.weight": [128, 128, 3, 3],
        "output_blocks.2.0.in_layers.2.weight": [64, 128, 3, 3], "out.2.weight": [4, 64, 3, 3],
    }).items()},
    **{f"conditioner.embedders.1.model.{name}": shape for name, shape in {
        "text_projection": [1280, 4], "token_embedding.weight": [5, 1280],
        "positional_embedding": [77, 1280], "transformer.resblocks.0.mlp.c_fc.weight": [8, 4],
        "transformer.resblocks.0.attn.in_proj_weight": [12, 4],
        "transformer.resblocks.0.attn.in_proj_bias": [12]}.items()},
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": [5, 768],
}
CONTROLNET_FILE = {f"control_model.{name}": shape for name, shape in (HALF_UNET | {
    "input_hint_block.0.weight": [8, 3, 3, 3], "input_hint_block.2.weight": [8, 8, 3, 3],
    "input_hint_block.4.weight": [16, 8, 3, 3], "input_hint_block.14.weight": [64, 16, 3, 3],
    "zero_convs.0.0.weight": [64, 64, 1, 1], "middle_block_out.0.weight": [128, 128, 1, 1],
}).items()}
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

LORA_A = {"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 512]}
LORA_B = {"dtype": "F32", "shape": [64, 2], "data_offsets": [512, 1024]}
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LAYER_SHAPES = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (64, 64)}
LORA = {
    "__metadata__": {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2, "unet.r": 2})},
    f"{LAYER}.lora_down.weight": LORA_A, f"{LAYER}.lora_up.weight": LORA_B,
    f"{LAYER}.alpha": {"dtype": "F32", "shape": [], "data_offsets": [1024, 1028]},
    "bundle_emb.x.string_to_param.*": {"dtype": "F16", "shape": [4], "data_offsets": [1028, 1036]},
}
BINDINGS = {"parameters": {"net.a": [2, 3], "net.b": [1]}, "bindings": [
    {"dtype": "fp16", "shape": [2, 3], "offset": 64, "parameter": "net.a", "is_transposed": True},
    {"dtype": "fp32", "shape": [1], "value": "b_0", "parameter": "net.b"},
    {"dtype": "int8", "shape": [4], "offset": 192, "constant": 64},
]}
ARCHITECTURE = {"class": "CLIPTextModel", "config": TEXT, "prediction": {"type": "v_prediction"},
                "padding": {"end_token_id": 2, "pad_token_id": 1}}
COMPILED = Path(__file__).parent / "fixtures" / "mlmodelc" / "silero_fp16" / "expected.mlmodelc"
"""A small model as Apple's compiler wrote it."""

PLACES = ("tiny-emoji", "none-such", "none-such.toml", "mine.toml", "folder", "folder/file", "loop",
          "loop/x", "loop.toml", "loop.safetensors", "dangling", "", ".", "..", "/", "~", "~nobody",
          "~nobody/x.png", "a.png", "a" * 300, "a" * 300 + ".toml", "é" * 128 + ".safetensors",
          "none-such/" + "a" * 256, "a/" * 3000, "\0", "a\0.toml", "\ud800", "caf\udce9",
          "a\nb\x1b[2J", "-", "hub:", "hub:a", "hub:a/b/c", "https://x", "s3:", "-x", "x=y", "[")
COMMANDS = (("contract", 1), ("relink", 2), ("recipes", 0), ("weight", 3), ("why", 1), ("info", 1),
            ("find", 1), ("du", 0), ("history", 1), ("init", 1), ("lock", 1), ("generate", 1),
            ("export", 2), ("mil", 2), ("list", 0), ("forget", 1), ("none", 1), ("", 0))
VARIABLE_NAMES = (*VARIABLES, "name", "no", "")
MIL = ("show", "ops", "weights", "verify", "diff", "run", "compile", "chunk", "none")
VALUES = (*PLACES, "6", "99999999999999999999", "9" * 5000, "NaN", "1e400", "²", "64x64", "none")




def recipe(folder, chance):
    path = folder / "mine.toml"
    path.write_bytes(spoiled(toml(mutated(RECIPE, chance)), chance))
    load({"model": str(path)})


def config(folder, chance):
    part, family, document = chance.choice((
        ("unet", "sd", UNET), ("text_encoder", "sd", TEXT), ("vae", "sd", VAE),
        ("unet", "sdxl", XL_UNET), ("text_encoder_2", "sdxl", XL_TEXT),
        ("controlnet", "sdxl", XL_UNET | {"_class_name": "ControlNetModel"})))
    found = layout.config("config.json", spoiled(written(mutated(document, chance)), chance))
    normalize.architecture(part, found, family)
    normalize.latents(part, found, family)


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
        resources.TOKENIZER.vocabulary: written(mutated(WORDS | {"<pad>": 9}, chance)),
        resources.TOKENIZER.config: spoiled(written(mutated(TOKENIZER_CONFIG, chance)), chance),
    }, {})


def merges(folder, chance):
    sidecar_configs.check_tokenizer({
        resources.TOKENIZER.vocabulary: json.dumps(WORDS).encode(),
        resources.TOKENIZER.merges: spoiled(b"#version: 0.2\na b</w>\n", chance),
    })


def two_tokenizers(folder, chance):
    files = {}
    for tokenizer in resources.TOKENIZERS:
        words = mutated(WORDS, chance) if chance.random() < 0.3 else WORDS
        files |= {tokenizer.vocabulary: spoiled(written(words), chance),
                  tokenizer.merges: spoiled(b"#version: 0.2\na b</w>\n", chance)}
    sidecar_configs.host_tokenizer(files)


def single_file(folder, chance):
    """A file of XL and a ControlNet's; tensors lose their sides, names and numbers."""
    shapes = mutated(chance.choice((XL_FILE, CONTROLNET_FILE)), chance)
    header, end = {}, 0
    for name, shape in shapes.items():
        is_sound = isinstance(shape, list) and all(
            type(side) is int and 0 <= side < 3000 for side in shape)
        size = 2 * math.prod(shape) if is_sound and math.prod(shape) < 1 << 20 else 2
        header[name] = {"dtype": "F16", "shape": shape if size > 2 else [1],
                        "data_offsets": [end, end + size]}
        end += size
    text = written(header)
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    checkpoint = open_checkpoint([str(folder / "a.safetensors")], {})
    for part in ("unet", "controlnet", "text_encoder_2", "resources"):
        with contextlib.suppress(SDBuildError):
            if part == "resources":
                checkpoint.resources()
            else:
                normalize.architecture(part, checkpoint.config(part), "sdxl")
                for tensor in checkpoint.tensors(part).values():
                    assert sum(map(len, tensor.chunks())) == tensor.size_bytes


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


def lora(folder, chance):
    path = folder / "a.safetensors"
    header = written(mutated(LORA, chance))
    content = struct.pack("<Q", len(header)) + header + bytes(1024) + struct.pack("<f8x", 2)
    path.write_bytes(spoiled(content, chance))
    for updates in loras.read(path).updates.values():
        for update in loras.matched(str(path), updates, LAYER_SHAPES).values():
            update.delta.load()(0, 1)


def bindings(folder, chance):
    (folder / "bindings.json").write_bytes(spoiled(written(mutated(BINDINGS, chance)), chance))
    read_bindings(folder / "bindings.json")


def architecture(folder, chance):
    path = folder / "architecture.json"
    path.write_bytes(spoiled(written(mutated(ARCHITECTURE, chance)), chance))
    read_architecture(path, {"prediction": "epsilon"})


def description(folder, chance):
    name = chance.choice(("coremldata.bin", "analytics/coremldata.bin"))
    content = (COMPILED / name).read_bytes()
    unpack_description(spoiled(content[:chance.choice((80, len(content)))], chance), "x")


def compiled(folder, chance):
    """A compiled model, also as one of a bundle that anybody made."""
    model = folder / "TextEncoder.mlmodelc"
    model.mkdir(exist_ok=True)
    (model / "coremldata.bin").write_bytes((COMPILED / "coremldata.bin").read_bytes())
    for name in ("coremldata.bin", "metadata.json", "model.mil"):
        content = (COMPILED / name).read_bytes() if (COMPILED / name).exists() else b"[{}]"
        at = chance.randrange(len(content))  # long files: a part is spoiled, the rest stays
        (model / name).write_bytes(content[:at] + spoiled(content[at:at + 200], chance)
                                   + content[at + 200:])
    try:
        read_compiled(model)
    finally:
        violations(folder)


def links(folder, chance):
    """A folder of a checkpoint whose links lead anywhere."""
    (folder / "inside").mkdir(exist_ok=True)
    path = folder / "inside" / "x.json"
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(chance.choice((*PLACES, "x.json", "../inside/x.json", "../secret")))
    except (OSError, ValueError):  # no link can lead there
        return
    (folder / "secret").write_text("{}")
    checkpoint_links.absolute(outside_path(f"{folder}/inside/{chance.choice(PLACES)}", "source"))
    assert checkpoint_links.inside(folder / "inside", "x.json").read_text() != "{}"


def words(folder, chance):
    """The words of a command line, none of which may start a build: there is no checkpoint."""
    name, count = chance.choice(COMMANDS)
    args = [name] + ([chance.choice(MIL)] if name == "mil" else [])
    args += [chance.choice(VALUES) for _ in range(count + chance.choice((0, 0, 0, -1, 1)))]
    for _ in range(chance.choice((0, 1, 1, 2))):
        variable, value = chance.choice(VARIABLE_NAMES), chance.choice(VALUES)
        args += chance.choice(([f"{variable}={value}"], [f"--{variable}={value}"],
                               [f"--{variable}", value]))
    if name in ("generate", "contract", "lock", "export", "relink"):
        args.insert(1, "source=none-such")
    (folder / "sdbuild.toml").write_text("cache = 'cache'\n" if chance.random() < 0.9 else spoiled(
        b"cache = 'loop/x'\nmodel = 'a.toml'\n", chance).decode("latin-1"))
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), \
            contextlib.redirect_stderr(printed):
        try:
            status = main(args)
        except SystemExit as ended:  # as doit and argparse end
            status = ended.code
    assert status in (0, 1, 2, 3), (status, args)
    assert "Traceback" not in printed.getvalue(), (args, printed.getvalue())
    assert status != 2 or printed.getvalue(), args


TARGETS = (recipe, config, index, scheduler, tokenizer, padding, merges, safetensors, bundle,
           package, record, shared_record, lock, lora, bindings, architecture, description,
           compiled, links, words, two_tokenizers, single_file)


SLOW = {"words": 3_000, "compiled": 2_000}
"""Inputs of the slow run where one takes longer: 22 targets, more than 100,000 inputs."""


def run(target, folder, count):
    for number in range(count):
        chance = random.Random(f"{target.__name__} {number}")
        try:
            target(folder, chance)
        except SDBuildError as error:
            assert str(error), (target.__name__, number)
        except Exception as error:
            raise AssertionError(f"{target.__name__}, input {number}: {error!r}") from error


@pytest.fixture(autouse=True)
def places(tmp_path):
    """What the places of a command line lead to, in a folder that holds a store of its own."""
    for name in ("loop", "loop.toml", "loop.safetensors"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "cache" / "records").mkdir(parents=True)
    (tmp_path / "mine.toml").write_text('family = "sd"\nsource = "none-such"\nsize = 64\n'
                                        'components = ["unet"]\n')


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_a_mutated_document_is_read_or_refused(target, tmp_path):
    run(target, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_a_hundred_thousand_mutated_documents_are_read_or_refused(target, tmp_path):
    run(target, tmp_path, SLOW.get(target.__name__, 6_000))
