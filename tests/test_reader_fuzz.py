"""Readers of files from outside, on mutated documents: read or refused, never a traceback.

Documents begin sound and lose a value, a type, a name, their nesting or some bytes. A failure
names the target and the number of the input, which makes the same input again.
"""

import contextlib
import io
import json
import math
import random
import struct
from pathlib import Path

import pytest

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
from sdbuild.store.record import decoded, encoded
from sdbuild.store.remote import envelope
from tests.documents import (
    ARCHITECTURE,
    BINDINGS,
    COMPILED,
    CONTROLNET_FILE,
    HEADER,
    INDEX,
    INGREDIENTS,
    KEY,
    LAYER_SHAPES,
    LORA,
    MANIFEST,
    PACKAGE,
    RECIPE,
    RECORD,
    SCHEDULER,
    TEXT,
    TOKENIZER,
    TOKENIZER_CONFIG,
    UNET,
    VAE,
    WORDS,
    XL_FILE,
    XL_TEXT,
    XL_UNET,
)
from tests.mutations import mutated, spoiled, toml, written

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


MOST = {"words": 3_000, "compiled": 2_000}
"""Inputs where one takes longer than the others, which are 6,000: 22 targets, more than 100,000."""


def run(target, folder, numbers):
    for number in numbers:
        chance = random.Random(f"{target.__name__} {number}")
        try:
            target(folder, chance)
        except SDBuildError as error:
            assert str(error), (target.__name__, number)
        except Exception as error:
            raise AssertionError(f"{target.__name__}, input {number}: {error!r}") from error


@pytest.fixture(autouse=True)
def places(tmp_path):
    """Makes the files and links that words of a command line name, in a folder with a store."""
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
    run(target, tmp_path, range(100))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_many_mutated_documents_are_read_or_refused(target, tmp_path, request):
    """Every tenth, or of the whole hundred thousand those that `--every` asks for."""
    every = request.config.getoption("every") or 10
    run(target, tmp_path, range(0, MOST.get(target.__name__, 6_000), every))
