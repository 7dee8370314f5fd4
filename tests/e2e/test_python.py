"""The face for Python on a real build, and the notebook that shows it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import sdbuild
from tests.e2e.project import ROOT

NOTEBOOK = ROOT / "examples" / "python.ipynb"


def test_a_build_says_what_ran_and_what_was_reused(project):
    built = sdbuild.build("tiny-emoji", cache=project.cache, bundle=project.bundle)

    assert built.bundle == project.bundle
    assert (len(built.ran), len(built.reused)) == (0, 25)
    assert built.reused["palettize:unet"].ingredients["params"]["nbits"] == 6


def test_an_image_from_python_is_that_of_the_command(project, tmp_path):
    project.sdbuild("generate", "seed=3", "steps=2", f"out={tmp_path / 'a.png'}")
    bundle = sdbuild.load_bundle(project.bundle)

    first, second = bundle.generate(seed=3, steps=2, count=2)
    (again,) = bundle.generate(seed=4, steps=2)

    assert np.array_equal(first, Image.open(tmp_path / "a.png"))
    assert np.array_equal(second, again)


def test_an_unknown_setting_of_an_image_is_refused(project):
    project.sdbuild("build")
    with pytest.raises(sdbuild.errors.RecipeError, match='did you mean "steps"'):
        sdbuild.load_bundle(str(project.bundle)).generate(stesp=3)


def cells():
    """The code of the notebook's cells."""
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
            if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_what_it_printed():
    found = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] for cell in found["cells"] if cell["cell_type"] == "code")
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs_in_their_order(project, tmp_path):
    code = "\n\n".join(cells())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"SDBUILD_CACHE": str(project.cache)})
    assert done.returncode == 0, done.stderr
    assert "quant is '5', expected one of" in done.stdout
