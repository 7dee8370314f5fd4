"""Special cases of SFTP: host keys, and servers that cannot rename onto a file."""

import random
import threading
import time

import paramiko
import pytest

from sdbuild.base.errors import RemoteFailed
from sdbuild.store.remote.sftp import SFTP
from sdbuild.store.remote.transport import Transport
from tests.store.remote.places import KINDS
from tests.store.remote.sftp_server import Files


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


def test_a_file_comes_once_however_quickly_the_server_answers(place, tmp_path, monkeypatch):
    """Answers before the next request have paramiko's `prefetch` take a file as read."""
    ask = paramiko.SFTPClient._async_request

    def slowly(*arguments):
        time.sleep(0.05)
        return ask(*arguments)

    content = random.Random(1).randbytes(300_000)
    place.files.mkdir(parents=True)
    place.write("a", content)
    there = SFTP(place.url, timeout_s=600)
    there.size("a")  # connects
    monkeypatch.setattr(paramiko.SFTPClient, "_async_request", slowly)
    place.wire.forget()

    there.get("a", tmp_path / "here", lambda: None)

    assert (tmp_path / "here").read_bytes() == content
    assert len(content) < place.wire.received < len(content) * 1.05


def test_a_connection_that_breaks_while_it_is_read_ahead_prints_no_traceback(
    place, tmp_path, monkeypatch
):
    """Threads of paramiko that read ahead print one, which nobody catches: its issue 2379."""
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    place.files.mkdir(parents=True)
    place.write("a", bytes(100_000))
    there = SFTP(place.url, timeout_s=600)

    with pytest.raises((OSError, paramiko.SSHException)):
        there.get("a", tmp_path / "here", lambda: there._client.close())

    assert raised == []
