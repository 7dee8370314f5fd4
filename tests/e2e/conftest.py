"""One built store for all end-to-end tests; a test that adds to it works on a copy."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from sdbuild.store import Store
from tests.e2e.hub_checkpoints import content
from tests.e2e.project import ROOT, Project
from tests.hub_server import Hub

MODEL = "Stable_Diffusion_version_owner_tiny"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The default bundle, and the fp16 one, built once for all processes of the tests; to read."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    project = Project(shared / "built")
    with (shared / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (project.folder / "fp16").exists():
            project.doit("-n", "2", "build")
            project.doit("build", "quant=none", "chunk=1", bundle=project.folder / "fp16")
    return project


@pytest.fixture(scope="session")
def packages(built, tmp_path_factory):
    """The fp16 packages, in a folder and with names as Apple's converter gives them."""
    folder = tmp_path_factory.mktemp("packages")
    store = Store(built.cache)
    for record in store.records():
        kind, _, component = record.step.partition(":")
        if kind == "convert":
            made = store.checkout(record, folder / component)
            (package,) = made.glob("*.mlpackage")
            shutil.move(package, folder / f"{MODEL}_{component}.mlpackage")
            made.rmdir()
    return folder


@pytest.fixture
def new_project(tmp_path):
    """A project with an empty store."""
    return Project(tmp_path)


@pytest.fixture
def project(built, tmp_path):
    """A copy of the built store that a test may add to and take from."""
    return built.copy(tmp_path)


@pytest.fixture
def own_project(built, tmp_path):
    """A copy of the built store whose files a test may damage."""
    return built.copy(tmp_path, shutil.copy2)


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
