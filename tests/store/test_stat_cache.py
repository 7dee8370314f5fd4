"""Files outside the store are read again where they may have changed."""

import hashlib
import json

from sdbuild.store import stat_cache
from sdbuild.store.json_cache import Notes
from sdbuild.store.stat_cache import source_digest


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_file_outside_is_read_again_only_if_its_stamp_changed(store, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_text("one")
    reads = []
    real = stat_cache.sha256_file
    monkeypatch.setattr(stat_cache, "sha256_file", lambda p: reads.append(p) or real(p))
    monkeypatch.setattr(stat_cache.time, "time_ns", lambda: path.stat().st_ctime_ns + 10**10)

    first = source_digest(path, store)
    assert source_digest(path, store) == first
    assert len(reads) == 1

    path.write_text("two")
    assert source_digest(path, store) == sha256(b"two")
    assert len(reads) == 2


def test_a_file_that_has_just_been_written_is_not_remembered(store, tmp_path):
    """It could change again within the resolution of the clock, with the same stamp."""
    path = tmp_path / "weights"
    path.write_text("one")

    source_digest(path, store)

    assert not (store.root / "stamps.json").exists()


def test_asking_makes_no_store_and_what_was_found_is_kept_once_there_is_one(store):
    Notes(store, "hub")["place"] = "commit"

    assert not store.root.exists()
    assert Notes(store, "hub")["place"] == "commit"

    with store.in_use("a build"):
        assert Notes(store, "hub")["place"] == "commit"
    assert json.loads((store.root / "hub.json").read_text()) == {"place": "commit"}


def test_a_file_is_read_once_where_no_store_is_yet(store, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_text("one")
    reads = []
    monkeypatch.setattr(stat_cache, "sha256_file", lambda p: reads.append(p) or "")
    monkeypatch.setattr(stat_cache.time, "time_ns", lambda: path.stat().st_ctime_ns + 10**10)

    source_digest(path, store)
    source_digest(path, store)

    assert reads == [path]


def test_broken_memory_of_stamps_costs_a_read_and_nothing_else(store, tmp_path):
    path = tmp_path / "weights"
    path.write_text("one")
    store.root.mkdir()
    (store.root / "stamps.json").write_text("{")

    assert source_digest(path, store) == sha256(b"one")


def test_a_digest_of_another_kind_that_an_older_sdbuild_remembers_is_not_taken(store, tmp_path):
    path = tmp_path / "weights"
    path.write_text("one")
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    Notes(store, "stamps")[str(path)] = [stamp, "0a" * 16]

    assert source_digest(path, store) == sha256(b"one")
