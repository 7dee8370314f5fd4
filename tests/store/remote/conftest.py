"""Machines on one server, and the kinds of places."""

import pytest

from sdbuild.store.remote import transport
from tests.store.remote import clouds, places
from tests.store.remote.builders import stages  # noqa: F401
from tests.store.remote.machines import Machine


def pytest_generate_tests(metafunc):
    """Tests of a `place` are of each kind, those of its `wire` of each that a server is before."""
    if "place" in metafunc.fixturenames:
        has_wire = "wire" in metafunc.fixturenames
        kinds = [kind for kind in (*places.KINDS, "s3") if not has_wire or kind != "folder"]
        if metafunc.config.getoption("clouds"):
            kinds += clouds.KINDS
        metafunc.parametrize("place", kinds, indirect=True)


@pytest.fixture
def place(request, tmp_path, monkeypatch):
    monkeypatch.delenv("SDBUILD_REMOTE_SECRET", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transport, "_PAUSE_S", 0.01)
    kind = request.param
    opened = (places.S3(request.getfixturevalue("s3"), monkeypatch) if kind == "s3"
              else (places.KINDS | clouds.KINDS)[kind](tmp_path, monkeypatch))
    yield opened
    opened.close()


@pytest.fixture
def wire(place):
    return place.wire


@pytest.fixture
def machines(tmp_path, s3):
    def machine(name, **options):
        (tmp_path / name).mkdir()
        return Machine(tmp_path / name, s3.url, **options)
    return machine


@pytest.fixture
def one(machines):
    return machines("one")


@pytest.fixture
def two(machines):
    return machines("two")
