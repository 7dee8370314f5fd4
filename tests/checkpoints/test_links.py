"""Links: the Hugging Face cache is made of them; in a folder of anybody they may lead anywhere."""

import os
from pathlib import Path

import pytest

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import open_checkpoint, resolve_place
from tests.checkpoints.test_single_file import download
from tests.single_files import write


def in_cache(folder, file, name):
    """The file as the Hugging Face cache keeps it."""
    blob = folder / "models--a--b" / "blobs" / "0123456789abcdef"
    link = folder / "models--a--b" / "snapshots" / ("c" * 40) / name
    blob.parent.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    blob.write_bytes(file.read_bytes())
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


@pytest.mark.parametrize("base", ["absolute", "relative"])
def test_a_file_in_the_hub_cache_keeps_its_suffix(first, unet, tmp_path, base):
    file = write(tmp_path / "a.safetensors", first[2])
    link = in_cache(tmp_path / "cache", file, "x.safetensors")

    place = resolve_place(str(link) if base == "absolute" else link.name,
                  link.parent if base == "relative" else tmp_path)

    assert place == str(link)
    assert download(place, tmp_path / "out", "unet") == unet


def test_a_snapshot_in_the_hub_cache_is_read_as_a_folder(first, unet, tmp_path):
    root = tmp_path / "models--a--b"
    snapshot = root / "snapshots" / ("c" * 40)
    (root / "blobs").mkdir(parents=True)
    for i, path in enumerate(sorted((first[0] / "unet").iterdir())):
        blob = root / "blobs" / str(i)
        blob.write_bytes(path.read_bytes())
        link = snapshot / "unet" / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))

    assert download(snapshot, tmp_path / "out", "unet") == unet


def linked(first, tmp_path, target):
    folder = tmp_path / "mine"
    (folder / "unet").mkdir(parents=True)
    for path in (first[0] / "unet").iterdir():
        (folder / "unet" / path.name).write_bytes(path.read_bytes())
    config = folder / "unet" / "config.json"
    config.unlink()
    config.symlink_to(target)
    return folder, config


def test_a_link_out_of_a_folder_is_refused(first, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    folder, link = linked(first, tmp_path, secret)

    for ask in (lambda c: c.identity("unet", digest_file), lambda c: c.config("unet")):
        with pytest.raises(SourceError, match="which is outside of") as error:
            ask(open_checkpoint([str(folder)], {}))
        assert f"{link} is a link to {secret}" in error.value.message


def test_a_link_inside_a_folder_is_followed(first, unet, tmp_path):
    folder, _ = linked(first, tmp_path, Path("..") / "shared.json")
    (folder / "shared.json").write_bytes((first[0] / "unet" / "config.json").read_bytes())

    assert download(folder, tmp_path / "out", "unet") == unet


def test_a_folder_that_is_itself_a_link_is_read(first, unet, tmp_path):
    (tmp_path / "latest").symlink_to(first[0])

    assert download(resolve_place("latest", tmp_path), tmp_path / "out", "unet") == unet


@pytest.mark.parametrize("target", ["nowhere", "config.json"], ids=["nothing", "itself"])
def test_a_link_to_nothing_is_named(first, tmp_path, target):
    folder, link = linked(first, tmp_path, target)

    with pytest.raises(SourceError, match="where there is no file") as error:
        open_checkpoint([str(folder)], {}).config("unet")
    assert str(link) in error.value.message
