"""Machines on one server, and the kinds of servers."""

import pytest
from file_server import FileServer
from machines import Machine


@pytest.fixture
def file_server():
    server = FileServer()
    yield server
    server.close()


@pytest.fixture(params=["s3", "folder", "http"])
def url(request, tmp_path):
    if request.param == "http":
        return request.getfixturevalue("file_server").url()
    return request.getfixturevalue("s3").url if request.param == "s3" else str(tmp_path / "shared")


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
