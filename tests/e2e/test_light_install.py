"""sdbuild without the extra `networks`: no torch, coremltools, diffusers or transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from tests.e2e.project import ROOT

LIGHT = Path(__file__).parents[1] / "light_install"


def run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "sdbuild", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(LIGHT)}, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built_lightly(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    done = run("build", "model=tiny-emoji", f"cache={folder / 'cache'}",
               f"bundle={folder / 'bundle'}")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_packages_are_hidden():
    code = "import importlib.metadata as m\n" \
           "try:\n    m.version('torch')\nexcept m.PackageNotFoundError:\n    import torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(LIGHT)}, check=False)

    assert "ModuleNotFoundError: No module named 'torch'" in done.stderr


def test_a_known_architecture_is_built_byte_for_byte_as_with_them(built_lightly, built):
    def bundle(cache):
        recipe = load({"model": "tiny-emoji"})
        return Builder(plan(recipe), Store(cache)).state("bundle").record

    assert bundle(built_lightly / "cache").tree == bundle(built.cache).tree


def test_an_architecture_of_which_no_program_ships_asks_for_them(built_lightly):
    done = run("build", "trace:vae_decoder", "model=tiny-emoji", "size=64x192",
               f"cache={built_lightly / 'cache'}")

    assert done.returncode == 1
    assert "trace:vae_decoder: the package torch is not installed." in done.stderr + done.stdout
    assert "pip install 'sdbuild[networks]'" in done.stderr + done.stdout


def test_images_ask_for_them(built_lightly):
    done = run("generate", str(built_lightly / "bundle"), "--steps=1")

    assert done.returncode == 1
    assert "pip install 'sdbuild[networks]'" in done.stderr
