"""The store never gives a damaged artifact, nor half of one."""

import json
import os
import re

import pytest
import xxhash

from sdbuild.base.errors import CorruptArtifact, MissingArtifact, StoreError
from sdbuild.store import Store
from tests.store.artifacts import folder, objects, record, without_clones


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
