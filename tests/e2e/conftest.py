"""One built store for all end-to-end tests; a test that changes it works on a copy."""

import os
import shutil
from pathlib import Path

import pytest
from hub_checkpoints import content
from hub_server import Hub
from project import ROOT, Project


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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub, and an environment that knows no other."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.close()


@pytest.fixture
def tiny(hub):
    """The commit of the built-in checkpoint at `owner/tiny`."""
    return hub.add("owner/tiny", content())
