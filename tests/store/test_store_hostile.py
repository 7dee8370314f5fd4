"""A store from somebody else, or by mistake: nothing outside of it is read into a bundle, changed
or removed for it, and nothing is waited for."""

import json
import os

import pytest

from sdbuild.base.errors import CorruptArtifact, SourceError, StoreError
from sdbuild.checkpoints.folder import Folder
from sdbuild.reports.gc import collect
from sdbuild.reports.verify import verify
from sdbuild.store.json_cache import Notes
from sdbuild.store.roots import roots
from sdbuild.store.stat_cache import source_digest
from tests.store.artifacts import folder, record

STRANGER = "0123456789abcdef" * 2
"""A name that files of the pool have, and those of other programs."""
OWN_NAMES = {"work": [f"{STRANGER}-1"], "roots": [f"{STRANGER}.json"], "locks": [STRANGER]}
"""Names that only the store's own have there: a link to a folder with such ones is followed."""


@pytest.fixture
def made(store, tmp_path):
    return store.put(folder(tmp_path, a="one"), record())


@pytest.fixture
def outside(tmp_path):
    """Somebody's files, of whatever names a store has."""
    place = tmp_path / "outside"
    for name in ("notes.json", f"{STRANGER}.json", STRANGER, f"{STRANGER}-1", "my-work"):
        path = place / "ab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        (place / name).write_text("mine")
    return place


def names(folder):
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize("row", [
    ["../../../etc/passwd", "0" * 32, 1], ["/etc/passwd", "0" * 32, 1], ["a/../b", "0" * 32, 1],
    ["", "0" * 32, 1], ["a\x1b[2J", "0" * 32, 1], ["a\\b", "0" * 32, 1],
    ["a", "../../../../etc/passwd", 1], ["a", "/etc/passwd", 1], ["a", "", 1], ["a", "Z" * 32, 1],
    ["a", "0" * 31, 1], ["a", "0" * 31 + "/", 1],
])
def test_a_record_that_leads_elsewhere_counts_as_none(store, made, row):
    path = next((store.root / "records").rglob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tree": [row]}))

    assert store.find(made.key) is None
    assert list(store.records()) == []


@pytest.mark.parametrize("key", ["../../outside/notes", "/etc/passwd", "", "..", "K" * 32])
def test_a_key_that_is_a_path_finds_nothing(store, made, key):
    assert store.find(key) is None


def pooled(store, made):
    return store.object(made.tree[0].digest)


@pytest.mark.parametrize("put", [
    lambda path, same: path.symlink_to(same), lambda path, same: os.mkfifo(path),
    lambda path, same: path.symlink_to("/dev/zero"), lambda path, same: path.symlink_to(path),
], ids=["link to the same bytes", "pipe", "device", "link to itself"])
def test_what_has_the_place_of_a_file_is_damaged_dropped_and_made_anew(store, made, tmp_path, put):
    """A link's target may change at any time, and a hard link of it would go into bundles."""
    same = tmp_path / "same"
    same.write_text("one")
    os.utime(same, ns=(946_684_800 * 10**9,) * 2)
    before = same.stat()
    pooled(store, made).unlink()
    put(pooled(store, made), same)

    assert not store.has_content(made)
    assert "not a regular file" in store.flaws(made.key)[0]
    with pytest.raises(CorruptArtifact):
        store.checkout(made, tmp_path / "place")

    assert not pooled(store, made).is_symlink() and not pooled(store, made).exists()
    assert same.stat().st_mtime_ns == before.st_mtime_ns
    again = store.put(folder(tmp_path, "again", a="one"), record())
    assert (store.checkout(again, tmp_path / "place") / "a").read_text() == "one"


@pytest.mark.parametrize("name", ["gone.json", "hub.json", "stamps.json"])
def test_a_pipe_in_the_place_of_a_cache_is_not_waited_for(store, made, name):
    (store.root / name).unlink(missing_ok=True)
    os.mkfifo(store.root / name)

    assert dict(Notes(store, "hub")) == {}
    if name == "gone.json":
        with pytest.raises(StoreError, match=r"gone\.json: not a regular file"):
            verify(store)
    else:
        assert verify(store).is_whole


def test_pipes_among_records_and_bundles_are_not_waited_for(store, made):
    os.mkfifo(store.root / "records" / "kk" / f"{'0' * 32}.json")
    (store.root / "roots").mkdir()
    os.mkfifo(store.root / "roots" / f"{STRANGER}.json")

    assert [found.key for found in store.records()] == [made.key]
    assert list(roots(store)) == []


@pytest.mark.parametrize("content", ["[[]]", "[1]", '["../../x"]', "{}", "1", "[" * 100_000])
def test_a_list_of_what_is_gone_may_hold_anything(store, made, content):
    (store.root / "gone.json").write_text(content)

    assert store.evicted() == set()
    store.evict([made.tree[0].digest])


@pytest.mark.parametrize("known", [1, "text", [], [1], {"a": 1}, [[1, 2], 3], None])
def test_a_remembered_digest_of_any_form_is_used_or_found_anew(store, tmp_path, known):
    path = tmp_path / "file"
    path.write_text("x")
    Notes(store, "stamps")[str(path)] = known

    assert source_digest(path, store).startswith("sha256:2d711642")  # sha256sum's


@pytest.mark.parametrize("place", ["records/ab", "objects/ab", "work", "roots", "locks"])
def test_links_to_folders_lose_nothing_there(store, made, outside, place):
    path = store.root / place
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
    path.symlink_to(outside)
    for name in OWN_NAMES.get(place, ()):
        (outside / name).unlink()
    before = names(outside)

    verify(store)
    collect(store)
    store.sweep_work()

    assert names(outside).keys() >= before.keys()  # locks may have come


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_a_source_folder_is_not_waited_for(tmp_path, store, name):
    (tmp_path / "source" / "unet").mkdir(parents=True)
    (tmp_path / "source" / "unet" / "config.json").write_text("{}")
    (tmp_path / "source" / "unet" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "source" / "unet" / name)

    with pytest.raises(SourceError):
        Folder(tmp_path / "source").identity("unet", lambda path: source_digest(path, store))
    with pytest.raises(OSError, match="not a regular file"):
        source_digest(tmp_path / "source" / "unet" / name, store)
