import json

import pytest

from sdbuild.errors import BundleError
from sdbuild.install import install, remove
from sdbuild.store import Record, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


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


@pytest.mark.parametrize("act", ["install", "remove"])
def test_what_somebody_put_into_a_bundle_is_not_lost(store, tmp_path, act):
    place = tmp_path / "mine"
    made = bundle(store, tmp_path, "1")
    install(made, store, place)
    (place / "NOTES.txt").write_text("x")

    with pytest.raises(BundleError, match=r"NOTES\.txt was put there by somebody else"):
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
