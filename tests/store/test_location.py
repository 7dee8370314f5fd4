"""Valid and invalid locations of a store."""

import pytest

from sdbuild.base.errors import StoreError
from sdbuild.store import check_place


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
