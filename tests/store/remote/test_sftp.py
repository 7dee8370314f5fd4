"""Special cases of SFTP: host keys, and servers that cannot rename onto a file."""

import threading

import paramiko
import pytest

from sdbuild.base.errors import RemoteFailed
from sdbuild.store.remote.sftp import SFTP
from sdbuild.store.remote.transport import Transport
from tests.store.remote.places import KINDS
from tests.store.remote.sftp_server import Files
from tests.waiting import wait_for


@pytest.fixture
def place(tmp_path, monkeypatch):
    opened = KINDS["sftp"](tmp_path, monkeypatch)
    yield opened
    opened.close()


@pytest.fixture
def known_hosts(place, tmp_path):
    return tmp_path / "home" / ".ssh" / "known_hosts"


def test_a_host_that_is_not_known_is_given_no_password(place, known_hosts):
    known_hosts.unlink()

    with pytest.raises(RemoteFailed, match="not found in known_hosts; log in once with ssh"):
        Transport(place.url).size("a")

    assert place.server.asked == []


def test_a_host_with_another_key_is_given_no_password(place, known_hosts):
    other = paramiko.ECDSAKey.generate()
    known_hosts.write_text(
        f"[127.0.0.1]:{place.wire.port} {other.get_name()} {other.get_base64()}\n")

    with pytest.raises(RemoteFailed, match="is not the one in ~"):
        Transport(place.url).size("a")

    assert place.server.asked == []


def test_a_wrong_password_is_tried_once(place):
    with pytest.raises(RemoteFailed, match="denies access: Authentication failed"):
        Transport(place.strange_url).size("a")

    assert place.server.asked == ["me"]


def test_a_server_without_posix_rename_has_files_replaced(place, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Files, "posix_rename", lambda self, old, new: paramiko.SFTP_OP_UNSUPPORTED)
    there = Transport(place.url)
    for text in ("old", "new"):
        (tmp_path / text).write_text(text)
        there.write(tmp_path / text, "records/a")

    assert place.read("records/a") == b"new"
    assert place.names() == {"records/a"}


def test_a_connection_that_breaks_while_it_is_read_ahead_prints_no_traceback(place, monkeypatch):
    """paramiko reads ahead in a thread, whose exceptions nobody catches: its issue 2379."""
    raised, before = [], threading.active_count()
    monkeypatch.setattr(threading, "excepthook", raised.append)
    place.files.mkdir(parents=True)
    place.write("a", bytes(100_000))
    there = SFTP(place.url, timeout_s=600)

    with there._reader("a") as file:
        there._client.close()
        file.prefetch(100_000)
        wait_for(lambda: threading.active_count() <= before)
        with pytest.raises(paramiko.SSHException):
            file.read(1)

    assert raised == []
