"""The store: whole artifacts or none, once each, never a damaged one."""

import errno
import json
import multiprocessing
import os
import re
import tempfile
import threading
from pathlib import Path

import pytest
import xxhash

from sdbuild.errors import CorruptArtifact, MissingArtifact, StoreError
from sdbuild.store import Entry, Record, Store, check_place, disk
from sdbuild.store.notes import Notes
from sdbuild.store.stamps import source_digest


def record(key="k" * 32, step="convert:unet"):
    return Record(key=key, step=step, ingredients={"kind": "convert"}, tree=(), seconds=1.0,
                  peak_bytes=1, made_at="2026-01-01T00:00:00+00:00", host="h")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def folder(tmp_path, name="out", **files):
    root = tmp_path / name
    for path, text in files.items():
        place = root / path.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def objects(store):
    return [p for p in (store.root / "objects").rglob("*") if p.is_file()]


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


def without_clones(monkeypatch):
    """As on ext4; on btrfs, XFS and APFS the tests run on clones otherwise."""
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)


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


def test_damage_is_found_named_and_dropped(store, tmp_path):
    made = store.put(folder(tmp_path, a="one"), record())
    store.verify(made)
    objects(store)[0].chmod(0o644)
    objects(store)[0].write_text("eno")

    with pytest.raises(CorruptArtifact, match=r"convert:unet .*: a is damaged"):
        store.verify(made)

    assert not store.has_content(made)


def test_flaws_say_what_was_found_and_what_was_expected(store, tmp_path):
    """Also of a file that was dropped for it, until that is there again."""
    made = store.put(folder(tmp_path, a="one", b="two"), record())
    assert store.flaws(made.key) == store.flaws("never made") == []
    a, b = (store.object(entry.digest) for entry in made.tree)
    for path in (a, b):
        path.chmod(0o644)
    a.write_text("eno")
    b.write_text("longer")

    one, eno = (xxhash.xxh3_128_hexdigest(text)[:8] for text in (b"one", b"eno"))
    flaws = [f"a is damaged: digest {eno}, expected {one}",
             "b is damaged: 6 bytes, expected 3"]
    assert store.flaws(made.key) == flaws
    assert store.flaws(made.key, "b") == flaws[1:]
    with pytest.raises(CorruptArtifact, match=re.escape("; ".join(flaws))):
        store.verify(made)
    assert store.flaws(made.key) == flaws
    assert Store(store.root).flaws(made.key) == ["a is not in the store", "b is not in the store"]

    store.put(folder(tmp_path, "again", a="one", b="two"), record())
    assert store.flaws(made.key) == []
    a.unlink()
    a.write_text("two!")
    assert store.flaws(made.key) == ["a is damaged: 4 bytes, expected 3"]


def test_a_record_that_cannot_be_read_is_a_flaw(store, tmp_path):
    made = store.put(folder(tmp_path, a="one"), record())
    (store.root / "records" / made.key[:2] / f"{made.key}.json").write_text("{")

    assert store.flaws(made.key) == ["its record is damaged"]


def test_a_file_that_was_written_to_through_any_link_is_not_trusted(store, tmp_path, monkeypatch):
    """Of the same size: only its time tells, and the bundle's link is the pool's own file."""
    without_clones(monkeypatch)
    made = store.put(folder(tmp_path, a="one", b="two"), record())
    place = store.checkout(made, tmp_path / "place")
    (place / "a").chmod(0o644)
    (place / "a").write_text("eno")

    assert not store.is_laid_out(made, place)
    assert not store.has_content(made)
    with pytest.raises(CorruptArtifact, match="a is damaged"):
        store.checkout(made, tmp_path / "again")

    whole = store.put(folder(tmp_path, "new", a="one", b="two"), record())
    assert store.has_content(whole)
    store.verify(whole)


def test_a_touched_file_is_read_again_and_trusted(store, tmp_path):
    made = store.put(folder(tmp_path, a="one"), record())
    os.utime(objects(store)[0])

    assert store.has_content(made)


def test_content_that_is_gone_is_missed(store, tmp_path):
    made = store.put(folder(tmp_path, a="one"), record())
    objects(store)[0].unlink()

    assert not store.has_content(made)
    with pytest.raises(MissingArtifact, match="a "):
        store.checkout(made, tmp_path / "place")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tree": []}', b"\xff", b"null", b"1"])
def test_a_record_that_cannot_be_read_counts_as_none(store, tmp_path, content):
    store.put(folder(tmp_path, a="one"), record())
    path = next((store.root / "records").rglob("*.json"))
    path.write_bytes(content)

    assert store.find("k" * 32) is None
    assert list(store.records()) == []


@pytest.mark.parametrize("changes", [
    {"key": "1" * 32}, {"made_at": None}, {"seconds": "1"}, {"peak_bytes": [1]}, {"facts": None},
    {"ingredients": []}, {"ingredients": {"inputs": None}}, {"tree": [["a", 1, 2]]},
    {"tree": [["a", "0" * 32, "2"]]}, {"tree": None}, {"more": 1},
])
def test_a_record_whose_parts_are_of_another_kind_counts_as_none(store, tmp_path, changes):
    store.put(folder(tmp_path, a="one"), record())
    path = next((store.root / "records").rglob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    assert store.find("k" * 32) is None
    assert list(store.records()) == []
    assert list(store.unreadable()) == [path]


def test_a_forgotten_record_is_gone_and_its_content_stays(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    assert store.forget("k" * 32)
    assert not store.forget("k" * 32)
    assert len(objects(store)) == 1


WRITES = ["chmod", "rename", "fsync", "mkdir"]


@pytest.mark.parametrize("call", range(12))
def test_a_crash_at_any_write_leaves_the_whole_artifact_or_none(store, tmp_path, monkeypatch, call):
    """Every write of `put` fails in turn, as on a full disk; then the same put succeeds."""
    import pathlib

    made = {"calls": 0}

    def counted(real):
        def wrapper(*args, **kwargs):
            made["calls"] += 1
            if made["calls"] == call + 1:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)
        return wrapper

    out = folder(tmp_path, a="one", b="two")
    with monkeypatch.context() as patch:
        for owner, name in ((pathlib.Path, "rename"), (pathlib.Path, "chmod"),
                            (pathlib.Path, "mkdir"), (os, "fsync")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        failed = False
        try:
            store.put(out, record())
        except StoreError as error:
            failed = True
            assert "No space left" in error.message

    assert (store.find("k" * 32) is None) == failed
    whole = store.put(folder(tmp_path, "again", a="one", b="two"), record())
    store.verify(whole)
    assert not list(store.root.rglob(".new-*"))


def test_a_workspace_is_empty_and_gone_afterwards_with_what_a_kill_left(store):
    left = store.root / "work" / "k-old"
    left.mkdir(parents=True)
    (left / "file").write_text("x")

    with store.workspace("k") as work:
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


def age(path, seconds):
    status = path.stat()
    os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def test_a_file_outside_is_read_again_only_if_its_stamp_changed(store, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_text("one")
    reads = []
    from sdbuild.store import stamps

    real = stamps.digest_file
    monkeypatch.setattr(stamps, "digest_file", lambda p: reads.append(p) or real(p))
    monkeypatch.setattr(stamps.time, "time_ns", lambda: path.stat().st_ctime_ns + 10**10)

    first = source_digest(path, store)
    assert source_digest(path, store) == first
    assert len(reads) == 1

    path.write_text("two")
    assert source_digest(path, store) == xxhash.xxh3_128_hexdigest(b"two")
    assert len(reads) == 2


def test_a_file_that_has_just_been_written_is_not_remembered(store, tmp_path):
    """It could change again within the resolution of the clock, with the same stamp."""
    path = tmp_path / "weights"
    path.write_text("one")

    source_digest(path, store)

    assert not (store.root / "stamps.json").exists()


def test_broken_memory_of_stamps_costs_a_read_and_nothing_else(store, tmp_path):
    path = tmp_path / "weights"
    path.write_text("one")
    store.root.mkdir()
    (store.root / "stamps.json").write_text("{")

    assert source_digest(path, store) == xxhash.xxh3_128_hexdigest(b"one")


def test_a_record_is_readable_json(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    found = json.loads(next((store.root / "records").rglob("*.json")).read_text())

    assert found["tree"] == [["a", xxhash.xxh3_128_hexdigest(b"one"), 3]]
    assert found["ingredients"] == {"kind": "convert"}


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

        with pytest.raises(StoreError, match=os.strerror(number)) as told:
            store.verify(made)
        assert told.value.hint
        with pytest.raises(StoreError, match=os.strerror(number)):
            store.find(made.key)

    store.verify(store.find(made.key))


PASSING = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE)


@pytest.mark.parametrize("number", PASSING)
def test_what_cannot_be_read_now_is_not_taken_for_missing(store, tmp_path, monkeypatch, number):
    made = store.put(folder(tmp_path, a="one"), record())
    path = store.object(made.tree[0].digest)
    store.checkout(made, tmp_path / "laid")
    os.utime(path)  # so that it is read
    refusing(monkeypatch, number, path.name, "a")

    for ask in (lambda: store.has_content(made), lambda: store.missing(made),
                lambda: store.file(made, "a"), lambda: store.is_laid_out(made, tmp_path / "laid")):
        with pytest.raises(StoreError, match=os.strerror(number)) as told:
            ask()
        assert told.value.hint


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


def test_what_the_disk_has_lost_counts_as_damaged(store, tmp_path, monkeypatch):
    made = store.put(folder(tmp_path, a="one"), record())
    refusing(monkeypatch, errno.EIO, made.tree[0].digest)

    with pytest.raises(CorruptArtifact):
        store.verify(made)


def test_other_users_may_read_records(store, tmp_path):
    store.put(folder(tmp_path, a="one"), record())

    assert next((store.root / "records").rglob("*.json")).stat().st_mode & 0o777 == 0o644


def test_notes_that_cannot_be_read_now_are_not_written_over(store, tmp_path, monkeypatch):
    notes = Notes(store, "hub")
    notes["first"] = 1
    with monkeypatch.context() as patch:
        refusing(patch, errno.EMFILE, "hub.json")
        notes["second"] = 2
        assert "first" not in notes

    assert dict(notes) == {"first": 1}


def test_what_a_kill_left_in_a_workspace_goes_though_nothing_has_to_run(store):
    left = store.root / "work" / f"{'k' * 32}-old"
    left.mkdir(parents=True)

    store.sweep_work()

    assert not left.exists()


def test_a_store_is_made_in_no_folder_of_somebody_else(tmp_path):
    (tmp_path / "unet").mkdir()

    with pytest.raises(StoreError, match=r"holds unet and no store, so it is left alone"):
        check_place(tmp_path)


def test_a_store_is_no_file(tmp_path):
    (tmp_path / "cache").write_text("x")

    with pytest.raises(StoreError, match="not a folder, expected that of a store"):
        check_place(tmp_path / "cache")


@pytest.mark.parametrize("names", [[], ["README.md", ".doit.db"], ["records", "a note"]])
def test_a_store_goes_into_a_new_folder_or_into_its_own(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()

    check_place(tmp_path)
    check_place(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
def test_users_of_one_group_work_in_each_others_store():
    """The folder is the group's (2775), and they work with umask 002."""
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
