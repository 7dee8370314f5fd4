"""Files that macOS adds to folders are ignored in a store, a bundle, a package and a checkpoint."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from sdbuild.base.errors import BundleError, StoreError
from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.install import check_replaceable, install, install_problem, leftovers, remove
from sdbuild.checkpoints.folder import Folder
from sdbuild.recipe import recipe
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.store import check_place
from tests.store.artifacts import record

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
ADDED = [".DS_Store", "._merges.txt", ".localized", "Icon\r"]
ADDED_FOLDERS = [".Spotlight-V100", ".fseventsd", ".Trashes", "__MACOSX"]


def visit(folder):
    """Leaves in a folder, and in those below it, what the Finder and Spotlight leave."""
    for place, names, _ in list(os.walk(folder)):
        names[:] = [name for name in names if name not in ADDED_FOLDERS]
        for name in (*ADDED, *(f"._{name}" for name in names)):
            Path(place, name).write_bytes(b"\0\5\x16\7Mac OS X")
        for name in ADDED_FOLDERS:
            Path(place, name).mkdir(exist_ok=True)
            Path(place, name, "store.db").write_bytes(b"8tsd")


def made(store, tmp_path, files):
    folder = tmp_path / "work"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def bundle(store, tmp_path):
    files = {"merges.txt": "a b", "manifest.json": json.dumps({"files": {"merges.txt": 0}})}
    whole = store.put(made(store, tmp_path, files), record())
    install(whole, store, tmp_path / "place" / "mine")
    return whole, tmp_path / "place" / "mine"


def test_a_bundle_that_was_looked_at_is_still_in_place(store, bundle):
    whole, place = bundle

    visit(place.parent)

    assert install_problem(whole, store, place) == ""


def test_a_bundle_that_was_looked_at_is_replaced_and_removed(store, bundle):
    whole, place = bundle
    visit(place)

    install(whole, store, place)
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "merges.txt"]

    visit(place)
    assert remove(place)
    assert not place.exists()


def test_what_a_user_adds_to_a_bundle_still_protects_it(bundle):
    _, place = bundle
    visit(place)
    (place / "notes.txt").write_text("mine")

    with pytest.raises(BundleError, match=r"mine: notes\.txt is not part of the bundle"):
        check_replaceable(place)


def test_a_folder_with_nothing_but_the_finders_files_may_become_a_bundle(store, bundle, tmp_path):
    whole, _ = bundle
    (tmp_path / "new").mkdir()
    visit(tmp_path / "new")

    install(whole, store, tmp_path / "new")

    assert install_problem(whole, store, tmp_path / "new") == ""


def test_what_a_kill_left_beside_a_bundle_is_found_after_a_visit(bundle):
    _, place = bundle
    (place.parent / ".mine-abcdefgh" / "new").mkdir(parents=True)
    visit(place.parent / ".mine-abcdefgh")

    assert [work.name for work in leftovers(place)] == [".mine-abcdefgh"]


def test_a_bundle_whose_name_begins_with_a_bar_is_not_taken_for_a_system_file(store, tmp_path):
    whole = store.put(made(store, tmp_path, {"a": "b"}), record())
    install(whole, store, tmp_path / "place" / "_mine")
    (tmp_path / "place" / "._mine-abcdefgh" / "new").mkdir(parents=True)

    assert [w.name for w in leftovers(tmp_path / "place" / "_mine")] == ["._mine-abcdefgh"]


def test_a_store_that_was_looked_at_reads_as_before(store, bundle):
    whole, _ = bundle
    before = sorted(store.objects()), list(store.records())

    visit(store.root)

    assert (sorted(store.objects()), list(store.records())) == before
    assert list(store.unreadable()) == []
    store.verify(whole)


def test_a_store_may_be_made_in_a_folder_that_was_looked_at(tmp_path):
    visit(tmp_path)
    check_place(tmp_path)

    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(StoreError, match=r"holds photo\.jpg and no store"):
        check_place(tmp_path)


def test_what_is_added_to_a_step_s_output_is_not_taken_into_its_artifact(store, tmp_path):
    folder = made(store, tmp_path, {"a/b": "x"})
    visit(folder)

    assert [entry.path for entry in store.put(folder, record()).tree] == ["a/b"]


def test_a_checkpoint_that_was_looked_at_is_read_as_before(tmp_path):
    shutil.copytree(BUILT_IN / "tiny-emoji", tmp_path / "checkpoint")
    folder = Folder(tmp_path / "checkpoint")
    before = folder.identity("unet", lambda path: path.read_bytes().hex())

    visit(tmp_path / "checkpoint")

    assert folder.identity("unet", lambda path: path.read_bytes().hex()) == before


def test_the_contract_sees_no_models_in_the_finders_files(tmp_path):
    (tmp_path / "Unet.mlmodelc").mkdir()
    visit(tmp_path)

    opened = open_bundle(tmp_path)

    assert opened.names == {"Unet.mlmodelc"}
    assert list(opened.models) == ["Unet"]


def test_names_that_a_disk_decomposes_are_the_same_names(store, tmp_path):
    """HFS+ lists `é` as two code points, whichever was written."""
    whole = store.put(made(store, tmp_path, {f"{DECOMPOSED}.txt": "x"}), record())
    assert [entry.path for entry in whole.tree] == [f"{COMPOSED}.txt"]

    place = tmp_path / "place"
    place.mkdir()
    (place / f"{DECOMPOSED}.txt").write_text("x")
    assert store.is_laid_out(whole, place)


def test_what_a_kill_left_is_found_under_either_spelling(store, tmp_path):
    whole = store.put(made(store, tmp_path, {"a": "b"}), record())
    install(whole, store, tmp_path / "place" / COMPOSED)
    (tmp_path / "place" / f".{DECOMPOSED}-abcdefgh" / "new").mkdir(parents=True)

    assert len(leftovers(tmp_path / "place" / COMPOSED)) == 1


def test_a_recipe_has_one_name_under_either_spelling(tmp_path):
    content = (BUILT_IN / "tiny-emoji.toml").read_text()
    content = content.replace('"tiny-emoji"', f'"{BUILT_IN / "tiny-emoji"}"')
    found = []
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / f"{name}.toml").write_text(content)
        found.append(recipe.load({"model": str(tmp_path / f"{name}.toml")}).name)

    assert found == [COMPOSED, COMPOSED]


@pytest.mark.parametrize("one, other", [
    ("Unet.mlmodelc", "unet.mlmodelc"), (f"{COMPOSED}.txt", f"{DECOMPOSED}.txt"),
    ("CAFÉ", DECOMPOSED), ("a/x", "A/y"), ("straße", "STRASSE"),
])
def test_names_that_are_one_on_a_mac_are_not_taken_into_an_artifact(store, tmp_path, one, other):
    folder = made(store, tmp_path, {one: "1", other: "2"})

    with pytest.raises(StoreError, match="are the same name on disks that ignore case"):
        store.put(folder, record())

    assert store.find(record().key) is None


def test_names_that_differ_by_more_are_kept_apart(store, tmp_path):
    names = {"a/x", "a/y", "ab/x", "cafe", COMPOSED, "x1", "x2"}

    whole = store.put(made(store, tmp_path, dict.fromkeys(names, "1")), record())

    assert {entry.path for entry in whole.tree} == names


def test_the_finders_file_beside_a_recipe_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "recipes"
    own.mkdir()
    (own / "mine.toml").write_text("summary = 'x'")
    visit(own)
    (own / "._mine.toml").write_bytes(b"\0\5\x16\7Mac OS X")

    built_in = {path.stem for path in BUILT_IN.glob("*.toml")}
    assert set(Project.here().names()) - built_in == {"mine"}
