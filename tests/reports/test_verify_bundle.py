"""verify BUNDLE: damage in a finished bundle of any tool is named; nothing is changed."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from sdbuild.base.errors import MILError
from sdbuild.bundle.manifest import write_manifest
from sdbuild.cli.main import main
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.read import read_model
from tests.bundle.test_foreign_bundle import MANIFEST

PAIR = Path(__file__).parent.parent / "fixtures" / "mlmodelc" / "silero_palette_4bit"
WEIGHTS = Path("Unet.mlmodelc", "weights", "weight.bin")


@pytest.fixture
def folder(tmp_path):
    """A model that Apple's compiler made, as a bundle without a manifest."""
    shutil.copytree(PAIR / "expected.mlmodelc", tmp_path / "bundle" / "Unet.mlmodelc")
    (tmp_path / "bundle" / WEIGHTS).parent.mkdir(exist_ok=True)
    shutil.copyfile(PAIR / "source.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
                    tmp_path / "bundle" / WEIGHTS)
    return tmp_path / "bundle"


def verified(place, capsys, status):
    assert main(["verify", str(place), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def rot(path):
    """Changes one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_bundle_of_another_tool_is_whole_and_what_cannot_be_known_is_said(folder, capsys):
    assert main(["verify", str(folder)]) == 0

    out = capsys.readouterr().out
    assert "1 model read: all intact" in out
    assert "no manifest.json with digests" in out


def test_a_model_without_its_weights_shows_without_a_manifest(folder, capsys):
    """apple/ml-stable-diffusion, issue 5: Core ML says it when the model is loaded."""
    (folder / WEIGHTS).unlink()

    (damage,) = verified(folder, capsys, 1)["damage"]

    assert damage["problem"].endswith("there is no such weight file")


def test_of_a_weight_file_of_many_faults_the_first_is_shown(folder, capsys):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:64] + b"\xff" * (len(content) - 64))
    faults = verified(folder, capsys, 1)["damage"]
    first = faults[0]["problem"]

    assert main(["verify", str(folder)]) == 1

    line, *_ = capsys.readouterr().out.splitlines()
    assert line == f"Unet.mlmodelc: {first}; and {len(faults) - 1} more"
    assert len(faults) > 3 and str(folder) not in first
    assert "weights/weight.bin: blob at offset" in first


def test_a_weight_file_of_another_model_is_refused_with_its_name(folder):
    """The types in it are not those of the program."""
    path = folder / "Unet.mlmodelc"
    weights = PAIR.parent / "silero_palette_8bit" / "source.mlpackage/Data/com.apple.CoreML"
    shutil.copyfile(weights / "weights" / "weight.bin", folder / WEIGHTS)

    with pytest.raises(MILError) as refused:
        Executor(read_model(path))

    assert str(path) in refused.value.message and "TensorType" not in refused.value.message
    assert refused.value.hint.startswith(f"`sdbuild mil verify {path}` lists all")


def test_a_weight_file_that_was_cut_shows_without_a_manifest(folder, capsys):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:len(content) * 2 // 3])

    found = verified(folder, capsys, 1)

    assert {each["path"] for each in found["damage"]} == {"Unet.mlmodelc"}
    assert (found["with_digest"], found["is_whole"]) == (0, False)


def test_one_bit_of_a_weight_shows_by_the_manifest_and_the_file_is_left_alone(folder, capsys):
    write_manifest(folder, MANIFEST)
    assert verified(folder, capsys, 0)["with_digest"] > 3
    rot(folder / WEIGHTS)
    damaged = (folder / WEIGHTS).read_bytes()

    found = verified(folder, capsys, 1)

    (damage,) = found["damage"]
    assert damage["path"] == WEIGHTS.as_posix()
    assert damage["problem"].startswith("digest ")
    assert (folder / WEIGHTS).read_bytes() == damaged


def test_a_missing_file_is_named(folder, capsys):
    write_manifest(folder, MANIFEST)
    (folder / WEIGHTS).unlink()

    (damage,) = verified(folder, capsys, 1)["damage"]

    assert (damage["path"], damage["problem"]) == (WEIGHTS.as_posix(), "missing")


def test_a_zip_is_read_and_one_with_a_damaged_file_is_refused(folder, tmp_path, capsys):
    """The sums of a zip are its own: Python's zipfile checks them."""
    zipped = shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    assert verified(zipped, capsys, 0)["bundle"] == zipped
    stored = tmp_path / "b.zip"
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    content = bytearray(stored.read_bytes())
    weights = (folder / WEIGHTS).read_bytes()
    content[content.index(weights) + len(weights) // 2] ^= 1
    stored.write_bytes(content)

    error = verified(stored, capsys, 1)["error"]

    assert "Bad CRC-32" in error["message"]
