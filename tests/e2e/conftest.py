"""One built store for all end-to-end tests; a test that changes it works on a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Project:
    """doit and sdbuild on a store and bundles of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"

    def command(self, *words, **places):
        places = {"cache": self.cache, "bundle": self.folder / "bundle"} | places
        return [*words, *(f"{name}={value}" for name, value in places.items())]

    def doit(self, *words, status=0, **places):
        """Runs doit; what it printed."""
        return run([sys.executable, "-m", "doit", *self.command(*words, **places)], status)

    def sdbuild(self, *words, status=0, **places):
        """Runs a command of sdbuild; what it printed."""
        return run([sys.executable, "-m", "sdbuild", *self.command(*words, **places)], status)

    def ran(self, *words, **places):
        """Runs doit; the names of the steps that ran."""
        lines = re.findall(r"^\.  (\S+)", self.doit(*words, **places), re.MULTILINE)
        return set(lines) - {"build", "generate", "check"}

    def why(self, *words, **places):
        found = self.sdbuild("why", *words, **places)
        return dict(re.split(r"\s{1,}", line, maxsplit=1) for line in found.splitlines())

    @property
    def bundle(self):
        return self.folder / "bundle"


def run(command, status):
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    assert "Traceback" not in printed, printed
    return printed


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The default bundle, and the fp16 one, built once."""
    project = Project(tmp_path_factory.mktemp("built"))
    project.doit("-n", "2", "build")
    project.doit("build", "quant=none", "chunk=1", bundle=project.folder / "fp16")
    return project


@pytest.fixture
def new_project(tmp_path):
    """A project with an empty store."""
    return Project(tmp_path)


@pytest.fixture
def project(built, tmp_path):
    """A copy of the built store that a test may add to and take from."""
    return copied(built, tmp_path, os.link)


@pytest.fixture
def own_project(built, tmp_path):
    """A copy of the built store whose files a test may damage."""
    return copied(built, tmp_path, shutil.copy2)


def copied(built, folder, copy_function):
    copy = Project(folder)
    shutil.copytree(built.cache / "objects", copy.cache / "objects", copy_function=copy_function)
    shutil.copytree(built.cache / "records", copy.cache / "records")
    return copy


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A copy of the built-in checkpoint, to read only."""
    return ROOT / "recipes" / "tiny-emoji"


@pytest.fixture
def own_checkpoint(tmp_path, checkpoint):
    """A copy of the built-in checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
