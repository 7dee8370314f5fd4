"""Output in a locale that lacks its characters.

So do containers without a locale (Megvii-BaseDetection/YOLOX, issue 220).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.project import ROOT

RECIPES = ROOT / "recipes"
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}


def run(*words, **variables):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False,
                          env=os.environ | ASCII | variables, capture_output=True, encoding="utf-8")


@pytest.fixture
def cafe(tmp_path):
    """A recipe, its checkpoint and a store of names that are not ASCII."""
    text = (RECIPES / "tiny-emoji.toml").read_text("utf-8")
    text = text.replace('"tiny-emoji"', f'"{RECIPES}/tiny-emoji"')
    (tmp_path / "café.toml").write_text(text, "utf-8")
    return [f"model={tmp_path / 'café.toml'}", f"cache={tmp_path / 'käse'}",
            f"bundle={tmp_path / 'bündel'}"]


@pytest.mark.slow
def test_doit_prints_names_as_escapes(cafe, tmp_path):
    (tmp_path / "bündel").mkdir()
    (tmp_path / "bündel" / "manifest.json").write_text('{"schema": 1, "files": {}}')

    done = run("doit", "clean", "build", *cafe)

    assert done.returncode == 0, done.stderr
    assert "b\\xfcndel removed" in done.stdout


def test_doit_prints_an_error_with_escapes(cafe):
    Path(cafe[1].removeprefix("cache=")).write_text("no folder")

    done = run("doit", "build", *cafe)

    assert done.returncode == 2
    assert "k\\xe4se" in done.stderr


def test_commands_print_on_both_streams(cafe):
    explained = run("sdbuild", "why", "build", *cafe)
    refused = run("sdbuild", "why", "build", *cafe, "quant=é")

    assert (explained.returncode, refused.returncode) == (0, 2), explained.stderr
    assert "expected one of none" in refused.stderr


def test_python_without_utf_8_gives_an_error_and_no_traceback(cafe):
    done = run("sdbuild", "why", "build", cafe[0], PYTHONUTF8="0")

    assert done.returncode == 2
    assert "caf\\udcc3\\udca9.toml', expected text" in done.stderr
