"""`scripts/compare`: what two machines or two compilers made, compared in words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "tests" / "fixtures" / "mlmodelc" / "silero_fp16" / "expected.mlmodelc"


def compare(*words, status):
    """Runs it; the lines that it printed."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "compare", *map(str, words)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return (done.stdout + done.stderr).splitlines()


def artifact(step, digest, **ingredients):
    return {"step": step, "digest": digest, "key": json.dumps(ingredients),
            "ingredients": ingredients}


@pytest.fixture
def listed(tmp_path):
    def listed(name, *artifacts):
        path = tmp_path / name
        path.write_text(json.dumps({"schema": 1, "artifacts": artifacts}))
        return path
    return listed


@pytest.fixture
def bundles(tmp_path):
    """Two bundles of one model that Apple's compiler made, with weights of ours."""
    for name in ("a", "b"):
        weights = shutil.copytree(MODEL, tmp_path / name / "Unet.mlmodelc") / "weights"
        weights.mkdir(exist_ok=True)
        (weights / "weight.bin").write_bytes(bytes(1000))
    return tmp_path / "a", tmp_path / "b"


# digests


def test_the_same_digests_are_the_same_though_made_at_other_times_and_measured_otherwise(listed):
    linux = listed("linux", artifact("lower:unet", "1"), artifact("parity:unet", "5"))
    mac = listed("mac", artifact("lower:unet", "0"), artifact("lower:unet", "1"),  # built again
                 artifact("parity:unet", "6"))

    assert compare("digests", mac, linux, status=0) \
        == [f"digests: {mac} and {linux} are the same"]


def test_a_step_that_depends_on_the_machine_is_told_from_one_with_other_ingredients(listed):
    linux = listed("linux", artifact("lower:unet", "1", tools={"torch": "2.13.0"}),
                   artifact("chunk:unet", "2", version=1), artifact("compile:unet", "3"))
    mac = listed("mac", artifact("lower:unet", "4", tools={"torch": "2.12.0"}),
                 artifact("chunk:unet", "5", version=1))

    assert compare("digests", mac, linux, status=1)[:4] == [
        f"compile:unet: only in {linux}",
        "lower:unet: other bytes, made from other ingredients:",
        '    tools.torch: "2.12.0" became "2.13.0"',
        f"chunk:unet: the same ingredients gave other bytes: digest 5 in {mac}, 2 in {linux}; "
        "the step depends on the machine",
    ]


def test_a_list_that_cannot_be_read_is_an_error(listed, tmp_path):
    (tmp_path / "page").write_text("<html>")

    (line,) = compare("digests", tmp_path / "page", listed("mac"), status=2)

    assert line.startswith("ERROR: ")


# models


def test_the_same_models_are_the_same(bundles):
    assert len(compare("models", *bundles, status=0)) == 1


def test_the_order_of_metadata_and_the_compilers_version_are_no_difference(bundles):
    metadata = bundles[1] / "Unet.mlmodelc" / "metadata.json"
    found = json.loads(metadata.read_text())
    metadata.write_text(json.dumps([dict(reversed(found[0].items()))]))
    program = bundles[1] / "Unet.mlmodelc" / "model.mil"
    text = program.read_text("utf-8")
    assert text.count('"3500.32.1"') == 1
    program.write_text(text.replace('"3500.32.1"', '"3600.9.1"'), "utf-8")

    assert len(compare("models", *bundles, status=0)) == 1


@pytest.mark.parametrize(("file", "change", "said"), [
    ("model.mil", lambda content: content.replace(b"relu(", b"gelu(", 1), "= relu(x ="),
    ("weights/weight.bin", lambda content: content[:100] + b"\xff" + content[101:],
     "bytes, which first differ at 100: "),
    ("metadata.json", lambda content: content.replace(b'"Float32"', b'"Float16"', 1),
     '[0].outputSchema[0].dataType: "Float32" became "Float16"'),
    ("coremldata.bin", lambda content: content.replace(b"input", b"inptu", 1),
     'name: "audio_input"… became …  name: "audio_inptu"…'),
    ("analytics/coremldata.bin", lambda content: content[:-1], "bytes, which first differ at "),
])
def test_a_difference_is_reported_with_its_file_and_place(file, change, said, bundles):
    path = bundles[1] / "Unet.mlmodelc" / file
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)

    *lines, end = compare("models", *bundles, status=1)

    assert all(line.startswith(f"Unet.mlmodelc/{file}: ") for line in lines)
    assert said in lines[0]
    assert end == f"models: {bundles[0]} and {bundles[1]} differ in {len(lines)} lines above"


def test_files_that_one_bundle_lacks_and_bundles_without_models_are_reported(bundles, tmp_path):
    (bundles[1] / "Unet.mlmodelc" / "metadata.json").unlink()
    (bundles[0] / "Unet.mlmodelc" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "none").mkdir()

    assert compare("models", *bundles, status=1)[0] \
        == f"Unet.mlmodelc/metadata.json: only in {bundles[0]}"
    assert compare("models", tmp_path / "none", tmp_path / "none", status=1)[0] \
        == f"{tmp_path / 'none'}: there is no compiled model"


# pictures


@pytest.fixture
def picture(tmp_path):
    def picture(name, value, size=(4, 4)):
        content = np.full((*size, 3), 100, np.uint8)
        content[1, 2] = value
        Image.fromarray(content).save(tmp_path / name)
        return tmp_path / name
    return picture


def test_pictures_are_compared_in_db(picture):
    """One of 16 pixels is 40 of 255 off: 10 log10(255² · 16 / 40²) = 28.1 dB."""
    a, b = picture("a.png", 100), picture("b.png", 140)

    assert f"{a} and {b}: 28.1 dB, at most 40 of 255 apart" \
        == compare("pictures", a, b, "--least=28", status=0)[0]
    assert compare("pictures", a, b, "--least=29", status=1)[1] == (
        f"{a} and {b}: 28.1 dB, expected at least 29; furthest apart at x=2, y=1: "
        "[100 100 100] became [140 140 140]")
    assert "inf dB" in compare("pictures", a, a, "--least=99", status=0)[0]


def test_pictures_of_two_sizes_are_reported(picture):
    a, b = picture("a.png", 100), picture("b.png", 100, size=(4, 8))

    assert compare("pictures", a, b, "--least=1", status=1)[0] == f"{a} is 4×4, {b} 8×4"
