"""Content that cannot be read just now is an error, and is not treated as lost."""

import errno
import os

import pytest

from sdbuild.base.errors import CorruptArtifact, StoreError
from sdbuild.store.json_cache import Notes
from tests.store.artifacts import folder, record

PASSING = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE)


def refusing(monkeypatch, number, *suffixes):
    """Opening files of such names fails for a reason that passes."""
    import pathlib

    real = pathlib.Path.open

    def refuse(path, *args, **more):
        if path.name.endswith(suffixes):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **more)
    monkeypatch.setattr(pathlib.Path, "open", refuse)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_what_cannot_be_read_now_is_not_taken_for_damaged_or_forgotten(
    store, tmp_path, monkeypatch, number,
):
    made = store.put(folder(tmp_path, a="one"), record())
    with monkeypatch.context() as patch:
        refusing(patch, number, made.tree[0].digest, ".json")

        with pytest.raises(StoreError, match=os.strerror(number)) as raised:
            store.verify(made)
        assert raised.value.hint
        with pytest.raises(StoreError, match=os.strerror(number)):
            store.find(made.key)

    store.verify(store.find(made.key))


@pytest.mark.parametrize("number", PASSING)
def test_what_cannot_be_read_now_is_not_taken_for_missing(store, tmp_path, monkeypatch, number):
    made = store.put(folder(tmp_path, a="one"), record())
    path = store.object(made.tree[0].digest)
    store.checkout(made, tmp_path / "laid")
    os.utime(path)  # so that it is read
    refusing(monkeypatch, number, path.name, "a")

    for ask in (lambda: store.has_content(made), lambda: store.missing(made),
                lambda: store.file(made, "a"), lambda: store.is_laid_out(made, tmp_path / "laid")):
        with pytest.raises(StoreError, match=os.strerror(number)) as raised:
            ask()
        assert raised.value.hint


@pytest.mark.parametrize("number", PASSING)
def test_what_cannot_be_looked_at_now_is_not_taken_for_missing(
    store, tmp_path, monkeypatch, number,
):
    made = store.put(folder(tmp_path, a="one"), record())
    path, real = store.object(made.tree[0].digest), os.stat

    def refuse(at, **more):
        if os.fspath(at) == str(path):
            raise OSError(number, os.strerror(number), str(at))
        return real(at, **more)
    monkeypatch.setattr(os, "stat", refuse)

    with pytest.raises(StoreError, match=os.strerror(number)):
        store.has_content(made)


@pytest.mark.parametrize("name", ["records", "objects"])
def test_a_folder_that_cannot_be_listed_now_does_not_count_as_empty(
    store, tmp_path, monkeypatch, name,
):
    store.put(folder(tmp_path, a="one"), record())
    real = os.listdir

    def refuse(at):
        if os.fspath(at) == str(store.root / name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(at))
        return real(at)
    monkeypatch.setattr(os, "listdir", refuse)

    with pytest.raises(StoreError, match="Permission denied"):
        list(getattr(store, name)())


def test_notes_that_cannot_be_read_now_are_not_written_over(store, tmp_path, monkeypatch):
    notes = Notes(store, "hub")
    with store.in_use("a build"):
        notes["first"] = 1
    with monkeypatch.context() as patch:
        refusing(patch, errno.EMFILE, "hub.json")
        notes["second"] = 2
        assert dict(notes) == {"second": 2}

    assert dict(notes) == {"first": 1, "second": 2}


@pytest.mark.parametrize("lose", [
    lambda path: path.unlink(),
    lambda path: (path.unlink(), path.parent.rmdir(), path.parent.write_text("")),
], ids=["ENOENT", "ENOTDIR"])
def test_what_is_not_there_is_missing(store, tmp_path, lose):
    made = store.put(folder(tmp_path, a="one"), record())
    lose(store.object(made.tree[0].digest))

    assert not store.has_content(made)


def test_what_the_disk_has_lost_is_missing(store, tmp_path, monkeypatch):
    made = store.put(folder(tmp_path, a="one"), record())
    path = store.object(made.tree[0].digest)
    os.utime(path)
    refusing(monkeypatch, errno.EIO, path.name)

    assert not store.has_content(made)


def test_what_the_disk_has_lost_counts_as_damaged(store, tmp_path, monkeypatch):
    made = store.put(folder(tmp_path, a="one"), record())
    refusing(monkeypatch, errno.EIO, made.tree[0].digest)

    with pytest.raises(CorruptArtifact):
        store.verify(made)
