"""sdbuild started in a folder that somebody else filled imports nothing from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.base.errors import StepError
from sdbuild.engine.process import run_step

ROOT = Path(__file__).parents[2]
NAMES = ("argparse", "ctypes", "google", "hashlib", "json", "numpy", "PIL", "pathlib", "shutil",
         "site_packages", "sitecustomize", "subprocess", "tempfile", "torch", "traceback", "xxhash")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """The current folder, with modules that leave a trace when they are imported."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    trace = f"open({str(tmp_path / 'imported')!r}, 'a').write(__name__ + '\\n')\n"
    for name in NAMES:
        (folder / f"{name}.py").write_text(trace)
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(trace)
    monkeypatch.chdir(folder)
    return folder


def imported(tmp_path):
    found = tmp_path / "imported"
    return found.read_text().split() if found.exists() else []


def test_the_folder_would_be_imported_from_otherwise(foreign, tmp_path):
    subprocess.run([sys.executable, "-c", "import json, torch"], check=True)

    assert imported(tmp_path) == ["json", "torch"]


@pytest.mark.parametrize("environment", [{}, {"PYTHONSAFEPATH": "1"}], ids=["as it is", "safe"])
def test_a_command_imports_nothing_from_the_folder_that_it_is_started_in(
    environment, foreign, tmp_path,
):
    """`mil ops` reads its arguments, numpy's arrays and a protobuf."""
    package = ROOT / "tests" / "fixtures" / "mlmodelc" / "silero_fp16" / "source.mlpackage"

    done = subprocess.run([sys.executable, "-m", "sdbuild", "mil", "ops", str(package)],
                          env=os.environ | environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "conv" in done.stdout
    assert imported(tmp_path) == []


def test_a_clone_that_is_not_installed_runs_where_it_lies():
    """The current folder is all that Python finds the package by."""
    packages = [folder for folder in sys.path if folder.endswith("site-packages")]

    done = subprocess.run(
        [sys.executable, "-S", "-c",
         f"import sys; sys.path[0] = {str(ROOT)!r}; sys.path += {packages!r}\n"
         "import runpy; sys.argv = ['sdbuild', '--help']; runpy.run_module('sdbuild')"],
        capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


def test_the_process_of_a_step_imports_nothing_from_the_current_folder(
    foreign, tmp_path, monkeypatch,
):
    """An empty entry stands for the current folder, as in an interactive session."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    work = tmp_path / "work"
    work.mkdir()

    with pytest.raises(StepError) as caught:
        run_step("no_such_stage", {"params": {}, "inputs": {}, "output": str(work)}, work)

    assert "No module named 'sdbuild.steps.no_such_stage'" in str(caught.value)
    assert imported(tmp_path) == []
