"""Files outside the store are read again where they may have changed."""

import xxhash

from sdbuild.store.stamps import source_digest


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
