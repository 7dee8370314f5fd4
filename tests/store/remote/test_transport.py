"""Files at a URL: what is said of it, what is refused, what ends in time."""

import contextlib
import socket
import subprocess
import sys

import pytest

from sdbuild.base.errors import RecipeError, RemoteFailed, ToolMissing
from sdbuild.store.remote.transport import Transport, redacted


@pytest.mark.parametrize(("url", "expected"), [
    ("sftp://me:pass%40word@host:22/store", "sftp://host:22/store"),
    ("https://host/store?token=abcd1234&x=1", "https://host/store?token=…&x=…"),
    ("https://me@host/store", "https://host/store"),
])
def test_a_remote_is_named_without_its_credentials(url, expected):
    assert str(Transport(url)) == expected
    assert "pass" not in repr(Transport(url))


@pytest.mark.parametrize("message", [
    "cannot log in to sftp://me:pass%40word@host", "user me:pass%40word is unknown",
    "bad password 'pass@word'", "GET http://me:pass%40word@host/x?sig=pass%40word failed",
])
def test_what_a_driver_says_is_passed_on_without_credentials(message):
    remote = Transport("sftp://me:pass%40word@host/store")

    said = remote._reason(OSError(message))

    assert "word" not in said.replace("password", "")


def test_keys_in_the_environment_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")

    assert Transport("s3://b/x")._reason(OSError("signed with wJalrXUtnFEMI")) == "signed with …"


def test_queries_and_users_in_any_text_are_blanked():
    assert redacted("x http://a:b@c/d?e=f&g=h y") == "x http://c/d?e=…&g=… y"


@pytest.mark.parametrize(("url", "found"), [
    ("s4://bucket/x", "unknown scheme 's4'"),
    ("s3://", "it has no bucket, host or folder"),
    ("s3://key:secret@bucket/x", "credentials in the URL are not supported for s3"),
])
def test_a_url_that_cannot_be_used_is_refused_and_not_shown_whole(url, found):
    with pytest.raises(RecipeError, match=found) as caught:
        Transport(url)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr("sdbuild.store.remote.transport.find_spec", lambda name: None)

    with pytest.raises(ToolMissing) as caught:
        Transport("gs://bucket/store")
    assert str(caught.value) == (
        "remote=gs://bucket/store: the package gcsfs is not installed.\n\nhint: pip install gcsfs"
    )


def test_a_file_goes_to_a_folder_whole_and_comes_back(tmp_path):
    there = Transport(str(tmp_path / "there"))
    (tmp_path / "file").write_bytes(b"content")

    there.write(tmp_path / "file", "objects/ab/abcd")

    assert there.size("objects/ab/abcd") == 7
    assert there.read("objects/ab/abcd", tmp_path / "back", 7)
    assert (tmp_path / "back").read_bytes() == b"content"
    assert [p.name for p in (tmp_path / "there/objects/ab").iterdir()] == ["abcd"]


def test_a_file_that_is_not_there_is_no_failure(tmp_path):
    there = Transport(f"file://{tmp_path}/none")

    assert there.size("a") is None
    assert there.read("a", tmp_path / "back", 7) is False


def test_more_bytes_than_were_promised_are_refused(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 100)

    with pytest.raises(RemoteFailed, match="larger than its 99 bytes"):
        Transport(str(tmp_path)).read("big", tmp_path / "back", 99)


def requests_for(path, listener):
    """Returns the number of connections to a listener that accepted none so far, and that asked for
    what is known of a path: others on this machine may try a port that is new to them, and fsspec,
    which was given up by then, asks for the content next."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            connection = listener.accept()[0]
        except BlockingIOError:
            return count
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.2)
            count += connection.recv(10_000).startswith(f"HEAD {path} ".encode())


def test_a_place_that_never_answers_is_asked_once_and_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = Transport(f"http://127.0.0.1:{silent.getsockname()[1]}/store", timeout_s=0.5)
        with pytest.raises(RemoteFailed, match="no answer in"):
            there.size("a")

        assert requests_for("/store/a", silent) <= 1  # none was made yet on a busy machine


FULL = """
mount -t tmpfs -o size=64k none "$1" && head -c 60000 /dev/zero > "$1/other" || exit 77
exec "$2" -c "$3" "$1" "$4"
"""
WRITES = """
import sys
from pathlib import Path
from sdbuild.base.errors import RemoteFailed
from sdbuild.store.remote.transport import Transport
try:
    Transport(sys.argv[1]).write(Path(sys.argv[2]), "objects/ab/abcd")
except RemoteFailed as error:
    print(error.is_refused, error, [str(p) for p in Path(sys.argv[1]).rglob("*.*")])
"""


def test_a_full_place_refuses_and_nothing_half_written_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 50_000)

    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", FULL, "sh", tmp_path / "there", sys.executable, WRITES,
         tmp_path / "file"], capture_output=True, text=True, check=False,
    )

    if done.returncode and not done.stdout:
        pytest.skip("no user file systems here")
    assert done.stdout.startswith("True [Errno 28] No space left on device")
    assert done.stdout.endswith("[]\n")
