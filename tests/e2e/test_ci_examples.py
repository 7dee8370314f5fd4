"""The scripts of `examples/github-actions/`, as their workflows run them."""

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from sdbuild.recipe.project import BUILT_IN

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "github-actions"


def run(script, *words, status=0, **environment):
    """Runs a script; what it printed."""
    done = subprocess.run(
        [EXAMPLES / script, *words], capture_output=True, text=True, check=False,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


def ran(printed):
    """The steps that ran."""
    return set(re.findall(r"^\.  (\w+:\w+)", printed, re.MULTILINE))


@pytest.mark.slow
def test_a_variant_is_built_from_the_export_that_another_left(project, tmp_path):
    out = tmp_path / "out"
    recipe = tmp_path / "quick.toml"  # the built-in one, checked by one quick image
    recipe.write_text(f'''family = "sd"
source = "{BUILT_IN / 'tiny-emoji'}"
size = "128x128"
components = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
palettize = ["text_encoder", "unet"]
chunk = 2
[draw]
prompt = "a red apple on a blue background"
steps = 8
[check]
prompts = ["a red apple on a blue background"]
''', "utf-8")

    printed = run("build", out, f"model={recipe}", "quant=4", STORE=project.cache)

    assert {name for name in ran(printed) if not name.startswith("parity:")} == {
        "palettize:text_encoder", "palettize:unet", "chunk:unet",
        "compile:text_encoder", "compile:unet",
    }
    assert {path.name for path in out.iterdir()} \
        == {"bundle", "check.txt", "picture.png", "report.json"}
    assert (out / "bundle" / "manifest.json").is_file()
    assert re.search(r"unet +noise_pred +\d+\.\d dB", (out / "check.txt").read_text())
    with Image.open(out / "picture.png") as picture:
        assert picture.size == (128, 128)


def test_a_store_that_was_packed_and_unpacked_is_as_good(project, tmp_path):
    with tarfile.open(tmp_path / "store.tar", "w") as tar:
        tar.add(project.cache, "cache")
    with tarfile.open(tmp_path / "store.tar") as tar:
        tar.extractall(tmp_path / "there", filter="data")

    printed = run("prepare", "compile", "model=tiny-emoji", STORE=tmp_path / "there" / "cache")

    assert ran(printed) == set()


def test_what_lies_in_a_shared_store_is_not_made(project, tmp_path):
    project.sdbuild("push", "build", remote=tmp_path / "shared")

    printed = run("prepare", "compile", "model=tiny-emoji", STORE=tmp_path / "empty",
                  REMOTE=tmp_path / "shared")

    assert ran(printed) == set()


def test_a_store_is_pruned_to_its_size(project):
    printed = run("prepare", "compile", "model=tiny-emoji", STORE=project.cache, STORE_SIZE="20M")

    kept = sum(path.stat().st_size for path in (project.cache / "objects").rglob("*")
               if path.is_file())
    assert "freed" in printed
    assert 0 < kept < 20_000_000


def test_a_job_that_fails_fails_and_its_store_is_pruned_all_the_same(project):
    printed = run("prepare", "convert", "model=tiny-emoji", "qunat=4", status=2,
                  STORE=project.cache, STORE_SIZE="10M")

    assert 'did you mean "quant"?' in printed
    assert "freed" in printed
