"""The store: whole artifacts or none, once each."""

import codecs
import errno
import json
import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest
import xxhash

from sdbuild.base.errors import StoreError
from sdbuild.store import Entry, Store
from tests.store.artifacts import folder, objects, record, without_clones


def test_what_was_put_is_found_with_the_digests_of_its_files(store, tmp_path):
    store.put(folder(tmp_path, a="one", b__c="two"), record())

    found = store.find("k" * 32)

    assert found.tree == (
        Entry("a", xxhash.xxh3_128_hexdigest(b"one"), 3),
        Entry("b/c", xxhash.xxh3_128_hexdigest(b"two"), 3),
    )


def test_the_same_bytes_are_kept_once(store, tmp_path):
    store.put(folder(tmp_path, "x", a="same", b="same"), record("1" * 32))
    store.put(folder(tmp_path, "y", c="same"), record("2" * 32))

    assert len(objects(store)) == 1


def test_files_in_the_pool_are_read_only(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    assert objects(store)[0].stat().st_mode & 0o222 == 0


def test_an_artifact_is_laid_out_as_links_into_the_pool(store, tmp_path, monkeypatch):
    without_clones(monkeypatch)
    made = store.put(folder(tmp_path, a="one", b__c="two"), record())

    place = store.checkout(made, tmp_path / "place")

    assert (place / "b" / "c").read_text() == "two"
    assert (place / "a").stat().st_nlink == 2


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP,
                                    errno.ENOSYS])
def test_where_links_fail_an_artifact_is_copied(number, store, tmp_path, monkeypatch):
    made = store.put(folder(tmp_path, a="one"), record())
    without_clones(monkeypatch)

    def refuse(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "link", refuse)

    place = store.checkout(made, tmp_path / "place")

    assert (place / "a").read_text() == "one"
    assert (place / "a").stat().st_nlink == 1


def test_a_part_of_an_artifact_has_its_own_digest_and_layout(store, tmp_path):
    made = store.put(folder(tmp_path, config="c", weights="w"), record())
    other = store.put(folder(tmp_path, "o", config="c", weights="x"), record("2" * 32))

    assert made.digest("config") == other.digest("config")
    assert made.digest() != other.digest()
    assert store.checkout(made, tmp_path / "one", "config").read_text() == "c"


def test_two_trees_of_the_same_bytes_under_other_names_differ(store, tmp_path):
    one = store.put(folder(tmp_path, "x", a="same"), record("1" * 32))
    other = store.put(folder(tmp_path, "y", b="same"), record("2" * 32))

    assert one.digest() != other.digest()


def test_a_layout_is_told_from_one_with_a_file_more_or_less_or_changed(store, tmp_path):
    made = store.put(folder(tmp_path, a="one", b="two"), record())
    place = store.checkout(made, tmp_path / "place")
    assert store.is_laid_out(made, place)

    (place / "c").write_text("more")
    assert not store.is_laid_out(made, place)

    (place / "c").unlink()
    (place / "a").unlink()
    assert not store.is_laid_out(made, place)

    (place / "a").write_text("eno")
    assert not store.is_laid_out(made, place)


def test_a_forgotten_record_is_gone_and_its_content_stays(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    assert store.forget("k" * 32)
    assert not store.forget("k" * 32)
    assert len(objects(store)) == 1


def test_a_workspace_is_empty_and_gone_afterwards_with_what_a_kill_left(store):
    left = store.root / "work" / f"{'k' * 32}-old"
    left.mkdir(parents=True)
    (left / "file").write_text("x")

    with store.workspace("k" * 32) as work:
        assert list(work.iterdir()) == []
        assert not left.exists()

    assert not work.exists()


def test_a_lock_is_waited_for(store):
    order = []
    with store.locked("k"):
        other = threading.Thread(target=lambda: _append_locked(store, order))
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()

    assert order == ["first", "second"]


def _append_locked(store, order):
    with store.locked("k"):
        order.append("second")


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError, match="Not a directory"), Store(tmp_path / "file").locked("k"):
        pass


def test_a_record_is_readable_json(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    found = json.loads(next((store.root / "records").rglob("*.json")).read_text())

    assert found["tree"] == [["a", xxhash.xxh3_128_hexdigest(b"one"), 3]]
    assert found["ingredients"] == {"kind": "convert"}


def test_other_users_may_read_records(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    assert next((store.root / "records").rglob("*.json")).stat().st_mode & 0o777 == 0o644


def test_what_a_kill_left_in_a_workspace_goes_though_nothing_has_to_run(store):
    left = store.root / "work" / f"{'k' * 32}-old"
    left.mkdir(parents=True)

    store.sweep_work()

    assert not left.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
def test_users_of_one_group_work_in_each_others_store(monkeypatch):
    """The folder is the group's (2775), and they work with umask 002."""
    monkeypatch.setattr(tempfile, "tempdir", None)  # the system's: pytest's is for one user
    codecs.lookup("utf-8-sig")  # its module may be root's alone, as all of Python here
    group, first, second = 54321, 54322, 54323

    def work(user, name, other):
        """Lays out another's artifact, gives it up, and puts one."""
        os.umask(0o002)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        store = Store(shared)
        with tempfile.TemporaryDirectory() as own, store.in_use("a build"):
            if other:
                found = store.find(other * 32)
                store.used(found)
                assert (store.checkout(found, Path(own) / "laid") / "a").read_text() == other
                store.forget(other * 32)
            with store.locked(name * 32):
                store.put(folder(Path(own), a=name), record(name * 32))

    with tempfile.TemporaryDirectory() as place:
        shared = Path(place)
        os.chown(shared, -1, group)
        shared.chmod(0o2775)
        for turn in ((first, "1", ""), (second, "2", "1"), (first, "3", "2")):
            child = multiprocessing.get_context("fork").Process(target=work, args=turn)
            child.start()
            child.join()
            assert child.exitcode == 0
        assert [found.key[0] for found in Store(shared).records()] == ["3"]
