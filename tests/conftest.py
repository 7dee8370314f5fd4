"""Fixtures and options for every folder of tests."""

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.e2e.project import PLAIN

# A job in the background of a shell ignores Ctrl-C, and so do its children: those of tests shall
# not.
signal.signal(signal.SIGINT, signal.default_int_handler)

MAC = Path(__file__).parent / "simulated_mac"


def pytest_addoption(parser):
    parser.addoption("--accept", action="store_true", help="write golden files anew")
    parser.addoption("--clouds", action="store_true", help="test shared stores on emulators of "
                     "Google Cloud Storage and Azure too (tests/store/remote/clouds.py)")
    parser.addoption("--simulate-mac", action="store_true", help="let our code take this machine "
                     "for a Mac with the Command Line Tools (docs/decisions/0028-macs.md)")
    parser.addoption("--every", type=int, metavar="K",
                     help="let the tests of faults try every K-th place, 1 with --accept, else "
                     "few, and those of mutated documents every K-th input, else every tenth")


def pytest_configure(config):
    if config.getoption("--simulate-mac"):
        from tests.simulated_mac.sitecustomize import pretend

        pretend()


def pytest_collection_finish():
    """Lets garbage collection pass over what is there for good: torch, coremltools and thousands of
    tests. Each whole collection took a second, and coremltools has one in each conversion."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Has libraries that clean up when a process ends write where pytest cleans up too: a process
    of pytest-xdist ends without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(scope="session", autouse=True)
def mac_for_processes(request):
    """Lets what tests start take this machine for a Mac too, if pytest does."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--simulate-mac"):
            patch.setenv("PATH", str(MAC / "bin"), prepend=os.pathsep)
            patch.setenv("PYTHONPATH", str(MAC), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session", autouse=True)
def steps_are_forked(mac_for_processes):
    """Lets the steps of all commands be forked from one process, for torch takes seconds to
    import; see `PLAIN`."""
    from sdbuild.engine.forks import SHARED, Forks

    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLAIN.items():
            patch.setenv(name, value)
        forks = Forks(idle_s=3600)
        address = forks.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SHARED, address.hex())
        yield
    forks.close()


@pytest.fixture(scope="session")
def s3_server():
    """A server that speaks S3, started when a test first asks for it."""
    from tests.s3_server import S3

    server = S3()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """An empty place on it, and an environment that knows no other."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SDBUILD_REMOTE_SECRET", raising=False)
    s3_server.begin(tmp_path.name)
    return s3_server


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    from sdbuild.store import Store

    return Store(tmp_path / "store")
