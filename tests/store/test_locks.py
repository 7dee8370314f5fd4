"""Locks: waited for by name, gone with their process, and kept where file systems have none."""

import errno
import fcntl
import io
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sdbuild.base.errors import StoreError
from sdbuild.store import Store, locks
from sdbuild.store.locks import grab, is_held, locked
from sdbuild.store.private import private_folder
from tests.waiting import wait_for

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="looks up the names of files")

HOLD = """
import signal, sys
from pathlib import Path
from sdbuild.store.locks import locked
with locked(Path(sys.argv[1]), "convert:unet"):
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_that_is_waited_for_tells_who_holds_it_and_goes_with_its_process(
    holder, tmp_path, capsys,
):
    threading.Timer(0.9, lambda: holder.send_signal(signal.SIGKILL)).start()

    with locked(tmp_path / "lock", "compile:unet"):
        pass

    printed = capsys.readouterr().err
    assert printed.startswith("compile:unet: waiting for convert:unet of process "
                              f"{holder.pid} on {os.uname().nodename}, since ")


def test_a_short_wait_is_not_worth_a_word(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_S", 600)  # so that it is short on a busy machine too
    with locked(tmp_path / "lock", "one"):
        thread = threading.Thread(target=lambda: locked(tmp_path / "lock", "two").__enter__())
        thread.start()
        time.sleep(0.1)
    thread.join()

    assert capsys.readouterr().err == ""


def test_a_lock_is_held_or_not(holder, tmp_path):
    assert is_held(tmp_path / "lock")
    assert grab(tmp_path / "lock") is None
    assert not is_held(tmp_path / "other")


def test_many_may_share_a_lock_and_one_alone_waits_for_all(tmp_path):
    order = []

    def alone():
        with locked(tmp_path / "lock", "gc"):
            order.append("alone")

    with locked(tmp_path / "lock", "a", is_shared=True):
        with locked(tmp_path / "lock", "b", is_shared=True):
            thread = threading.Thread(target=alone)
            thread.start()
            order.append("shared")
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()

    assert order == ["shared", "alone"]


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch, tmp_path):
    """A file system whose files cannot be locked, beside a /tmp whose can."""
    real, tmp = fcntl.flock, tmp_path / "tmp"
    tmp.mkdir()

    def flock(handle, how):
        if not str(Path(f"/proc/self/fd/{handle}").readlink()).startswith(str(tmp)):
            raise OSError(request.param, os.strerror(request.param))
        return real(handle, how)
    monkeypatch.setattr(locks.fcntl, "flock", flock)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp))
    return tmp


@needs_proc
def test_where_files_cannot_be_locked_processes_of_this_machine_are_kept_apart_all_the_same(
    without_locks, tmp_path,
):
    order = []

    def second():
        with locked(tmp_path / "lock", "second"):
            order.append("second")

    with locked(tmp_path / "lock", "first"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]
    assert not is_held(tmp_path / "lock")


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path):
    """Others that write to a shared store could have our files emptied: a holder signs."""
    target = tmp_path / "notes"
    target.write_text("mine")
    (tmp_path / "lock").symlink_to(target)

    with pytest.raises(StoreError, match="lock"), locked(tmp_path / "lock", "x"):
        pass

    assert target.read_text() == "mine"


@needs_proc
@pytest.mark.parametrize("without_locks", [errno.ENOLCK], indirect=True)
def test_a_lock_in_the_folder_for_temporary_files_that_is_a_link_is_not_followed(
    without_locks, tmp_path,
):
    target = tmp_path / "notes"
    target.write_text("mine")
    with locked(tmp_path / "lock", "x"):
        (name,) = (without_locks / f"sdbuild-{os.getuid()}").iterdir()
    name.unlink()
    name.symlink_to(target)

    with pytest.raises(StoreError, match=name.name), locked(tmp_path / "lock", "x"):
        pass

    assert target.read_text() == "mine"


def others_folder(place):
    place.mkdir(0o700)
    os.chown(place, 12345, 12345)


def open_folder(place):
    place.mkdir()
    place.chmod(0o777)


def link(place):
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    place.symlink_to(elsewhere)


@pytest.mark.parametrize("plant", [
    pytest.param(others_folder, marks=pytest.mark.skipif(
        os.getuid() != 0, reason="only root gives folders away")),
    open_folder, link, lambda place: place.write_text(""),
], ids=["another user's", "open to all", "a link", "a file"])
def test_a_private_folder_that_another_user_could_have_made_is_refused(
    plant, tmp_path, monkeypatch,
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plant(tmp_path / f"sdbuild-{os.getuid()}")

    with pytest.raises(StoreError, match="expected a folder of user") as caught:
        private_folder()

    assert "TMPDIR" in caught.value.hint


def test_a_private_folder_is_made_for_its_user_alone_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert private_folder() == private_folder()
    assert stat.S_IMODE(private_folder().stat().st_mode) == 0o700


def test_a_lock_that_fails_in_another_way_is_an_error_of_ours(monkeypatch, tmp_path):
    def flock(handle, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(locks.fcntl, "flock", flock)

    with pytest.raises(StoreError, match="Input/output error"), locked(tmp_path / "lock", "x"):
        pass


def test_a_step_that_another_process_makes_is_waited_for_and_not_made_twice(tmp_path, monkeypatch):
    """Two threads as two builds: the second finds what the first made."""
    store, made, is_held = Store(tmp_path / "store"), [], threading.Event()
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)

    def build(name):
        with store.in_use(name), store.locked("k" * 32, name):
            if not made:
                is_held.set()
                wait_for(said.getvalue)
                made.append(name)

    threads = [threading.Thread(target=build, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
        is_held.wait()
    for thread in threads:
        thread.join()

    assert made == ["one"]
    assert "two: waiting for one of process" in said.getvalue()


def test_a_lock_is_held_though_there_is_no_room_to_say_by_whom(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(locks.os, "pwrite", refuse)

    with locked(tmp_path / "lock", "x"):
        assert is_held(tmp_path / "lock")
