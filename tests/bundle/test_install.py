import json
import os
import threading
import time
from pathlib import Path

import pytest

from sdbuild.base.errors import BundleError, MissingArtifact
from sdbuild.bundle import install as installing
from sdbuild.bundle.install import check_replaceable, install, install_problem, leftovers, remove
from sdbuild.store import Record, disk


def bundle(store, tmp_path, key, **files):
    out = tmp_path / key
    out.mkdir()
    listed = json.dumps({"files": {f"{name}.json": [1, ""] for name in files}})
    for name, text in {"manifest": listed, **files}.items():
        (out / f"{name}.json").write_text(text)
    return store.put(out, Record(key=key * 32, step="bundle", ingredients={}, tree=(), seconds=0,
                                 peak_bytes=0, made_at="", host=""))


def test_a_new_bundle_takes_the_place_of_the_old_one_and_nothing_of_that_stays(store, tmp_path):
    """A chunk pair left beside a whole U-Net would be what hosts run."""
    place = tmp_path / "bundles" / "mine"
    install(bundle(store, tmp_path, "1", chunk="old"), store, place)

    install(bundle(store, tmp_path, "2", whole="new"), store, place)

    assert sorted(p.name for p in place.iterdir()) == ["manifest.json", "whole.json"]
    assert [p.name for p in place.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("act", ["install", "remove"])
def test_a_folder_that_is_no_bundle_is_left_alone(store, tmp_path, act):
    place = tmp_path / "holiday"
    place.mkdir()
    (place / "photo.jpg").write_text("x")

    with pytest.raises(BundleError, match="not a bundle, so it is left alone"):
        if act == "install":
            install(bundle(store, tmp_path, "1"), store, place)
        else:
            remove(place)

    assert (place / "photo.jpg").read_text() == "x"


def test_a_bundle_of_other_weights_is_not_taken_for_the_one_that_is_wanted(store, tmp_path):
    """Bundles of an architecture have files of the same names, sizes and times."""
    made = {}
    for key in "12":
        out = tmp_path / key
        out.mkdir()
        (out / "weights.bin").write_text(key * (1 << 21))
        (out / "manifest.json").write_text(json.dumps({"files": {"weights.bin": [1, key]}}))
        made[key] = store.put(out, Record(key=key * 32, step="bundle", ingredients={}, tree=(),
                                          seconds=0, peak_bytes=0, made_at="", host=""))
    install(made["1"], store, tmp_path / "mine")

    assert store.is_laid_out(made["1"], tmp_path / "mine")
    assert not store.is_laid_out(made["2"], tmp_path / "mine")


def test_a_place_that_holds_the_whole_disk_is_left_alone_at_once():
    with pytest.raises(BundleError, match="/: not a bundle, so it is left alone"):
        check_replaceable(Path("/"))


@pytest.mark.parametrize("act", ["install", "remove"])
def test_what_somebody_put_into_a_bundle_is_not_lost(store, tmp_path, act):
    place = tmp_path / "mine"
    made = bundle(store, tmp_path, "1")
    install(made, store, place)
    (place / "NOTES.txt").write_text("x")

    with pytest.raises(BundleError, match=r"NOTES\.txt is not part of the bundle"):
        if act == "install":
            install(made, store, place)
        else:
            remove(place)

    assert (place / "NOTES.txt").read_text() == "x"


def test_a_bundle_is_removed_and_its_content_stays_in_the_store(store, tmp_path):
    made = bundle(store, tmp_path, "1")
    install(made, store, tmp_path / "mine")

    assert remove(tmp_path / "mine")
    assert not remove(tmp_path / "mine")

    assert not (tmp_path / "mine").exists()
    store.verify(made)


class KilledError(BaseException):
    """As a kill: nothing of ours handles it."""


def killed_at(monkeypatch, name, call):
    """Ends everything at a call of a function of the disk, without a chance to clean up.

    On a system that cannot let two folders change their names at once.
    """
    monkeypatch.setattr(disk, "_swap", lambda one, other: False)
    calls = {"made": 0}
    real = getattr(disk.Path, name)

    def wrapper(*args, **more):
        calls["made"] += 1
        if calls["made"] >= call:
            raise KilledError
        return real(*args, **more)
    monkeypatch.setattr(disk.Path, name, wrapper)
    monkeypatch.setattr(installing, "sweep", lambda path: None)


@pytest.mark.parametrize("call", [2, 3])
def test_a_kill_between_the_renames_loses_no_bundle_and_leaves_nothing_for_long(
    store, tmp_path, monkeypatch, call,
):
    """The first rename is of the note of where the bundle goes."""
    place = tmp_path / "bundles" / "mine"
    old, new = bundle(store, tmp_path, "1", a="old"), bundle(store, tmp_path, "2", a="new")
    install(old, store, place)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, "rename", call)
        install(new, store, place)
    assert place.exists() == (call == 2)
    assert len(list(place.parent.iterdir())) == (2 if call == 2 else 1)

    install(new, store, place)

    assert [p.name for p in place.parent.iterdir()] == ["mine"]
    assert store.is_laid_out(new, place)


def test_a_bundle_is_at_its_place_at_every_moment_while_another_takes_it(
    store, tmp_path,
):
    place = tmp_path / "bundles" / "mine"
    install(bundle(store, tmp_path, "1", a="old"), store, place)
    probe = [tmp_path / name for name in ("one", "two")]
    for folder in probe:
        folder.mkdir()
    if not disk._swap(*probe):
        pytest.skip("this system cannot let two folders change their names at once")
    seen, done = set(), threading.Event()

    def look():
        while not done.is_set():
            try:
                seen.add((place / "a.json").read_text())
            except FileNotFoundError:
                seen.add("nothing")
    thread = threading.Thread(target=look)
    thread.start()
    for number in range(2, 22):
        install(bundle(store, tmp_path, f"{number:x}", a=f"new {number}"), store, place)
    done.set()
    thread.join()

    assert "nothing" not in seen
    assert len(seen) > 1


def test_what_a_kill_left_is_put_back_even_if_the_next_install_fails(
    store, tmp_path, monkeypatch,
):
    place = tmp_path / "bundles" / "mine"
    old, new = bundle(store, tmp_path, "1", a="old"), bundle(store, tmp_path, "2", a="new")
    install(old, store, place)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, "rename", 2)
        install(new, store, place)
    for entry in new.tree:
        store.object(entry.digest).unlink()

    with pytest.raises(MissingArtifact):
        install(new, store, place)

    assert (place / "a.json").read_text() == "old"


def test_what_belongs_to_another_bundle_or_to_somebody_is_not_swept(store, tmp_path):
    place = tmp_path / "bundles" / "mine"
    for name in (".mine-2-abcdefgh/old", ".mine-abcdefgh/photos", ".mine-notes"):
        (place.parent / name).mkdir(parents=True)

    install(bundle(store, tmp_path, "1", a="x"), store, place)

    assert {p.name for p in place.parent.iterdir()} == {
        "mine", ".mine-2-abcdefgh", ".mine-abcdefgh", ".mine-notes",
    }


def test_two_installs_into_one_place_do_not_mix(store, tmp_path, monkeypatch):
    place = tmp_path / "bundles" / "mine"
    made = [bundle(store, tmp_path, str(n), a=str(n), **{f"only{n}": "x"}) for n in range(1, 5)]
    real = store.checkout

    def slow(record, target, **rest):
        time.sleep(0.05)
        return real(record, target, **rest)
    monkeypatch.setattr(store, "checkout", slow)
    threads = [threading.Thread(target=install, args=(each, store, place)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(store.is_laid_out(each, place) for each in made) == 1
    assert [p.name for p in place.parent.iterdir()] == ["mine"]


def test_what_a_kill_left_beside_a_bundle_is_seen(store, tmp_path):
    """So that a bundle that is whole is put in place once more, which sweeps it."""
    place = tmp_path / "bundles" / "mine"
    made = bundle(store, tmp_path, "1", a="x")
    assert install_problem(made, store, place) == "not installed"
    install(made, store, place)
    assert (leftovers(place), install_problem(made, store, place)) == ([], "")

    left = place.parent / ".mine-abcdefgh"
    (left / "new").mkdir(parents=True)

    assert leftovers(place) == [left]
    problem = install_problem(made, store, place)
    assert problem == "installed, but a killed process left .mine-abcdefgh beside it"


def test_everything_in_a_bundle_is_synced_before_it_takes_its_place(
    store, tmp_path, monkeypatch,
):
    order = []
    real_sync, real_rename = disk.os.fsync, disk.Path.rename

    def fsync(handle):
        order.append(os.fstat(handle).st_ino)
        real_sync(handle)

    def rename(path, target):
        if target == place:
            order.append("in place")
        return real_rename(path, target)
    made = bundle(store, tmp_path, "1", a="x")
    place = tmp_path / "bundles" / "mine"
    monkeypatch.setattr(disk.os, "fsync", fsync)
    monkeypatch.setattr(disk.Path, "rename", rename)

    install(made, store, place)

    before = order[:order.index("in place")]
    assert {place.stat().st_ino, *(p.stat().st_ino for p in place.iterdir())} <= set(before)
