"""Images to compare with: which files of a folder count, and what they say that they are of."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdbuild.base.errors import SDBuildError
from sdbuild.bundle.request import Request
from sdbuild.reports.check import compared
from sdbuild.reports.reference import read_reference
from sdbuild.runtime import files

ASKED = Request(prompt="asked", negative="", seed=7, steps=3, guidance=1.0, scheduler="dpm",
                count=1)


def put(folder, name, level=100, **settings):
    text = PngInfo()
    for key, value in settings.items():
        text.add_itxt(key, str(value))
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(folder / name, pnginfo=text)


def said(seed):
    return {"prompt": "a fox", "seed": seed, "steps": 5, "guidance": "3.5", "scheduler": "ddim",
            "bundle": "mine, fp16", "software": "sdbuild", "parameters": "a fox"}


def test_images_are_of_what_is_written_in_them_and_a_contact_sheet_is_none(tmp_path):
    for number in (10, 9, 1):
        put(tmp_path / "images", f"fox-{number}.png", **said(number))
    put(tmp_path / "images", "fox.png", **said(1))
    (tmp_path / "images" / "notes.txt").write_text("x")

    found = read_reference(tmp_path / "images", [ASKED], "portable")

    assert [request.seed for request in found.requests] == [1, 9, 10]
    assert {(r.prompt, r.steps, r.guidance, r.scheduler) for r in found.requests} == {
        ("a fox", 5, 3.5, "ddim")}


def test_images_that_say_nothing_are_of_what_is_asked_in_their_order(tmp_path):
    put(tmp_path, "2.png", 50)
    put(tmp_path, "1.png", 200)

    found = read_reference(tmp_path, [ASKED, ASKED], "portable")

    assert [np.asarray(image).max() for image in found.images] == [200, 50]
    assert found.requests == (ASKED, ASKED)


@pytest.mark.parametrize("names, match", [
    ({"1.png": {}, "2.png": {}}, "2 images without settings, and 1 asked for"),
    ({"1.png": {}, "2.png": said(2)}, "1.png: no settings in it"),
    ({"1.png": said("many")}, "seed is 'many'"),
    ({"1.png": said(1) | {"scheduler": "\x1b[2J"}}, "scheduler is"),
])
def test_a_folder_that_does_not_say_what_it_is_of_is_refused(tmp_path, names, match):
    for name, settings in names.items():
        put(tmp_path, name, **settings)

    with pytest.raises(SDBuildError, match=match):
        read_reference(tmp_path, [ASKED], "portable")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")

    with pytest.raises(SDBuildError, match=r"1\.png"):
        read_reference(tmp_path, [ASKED], "portable")


def test_what_is_neither_images_nor_a_bundle_is_refused(tmp_path):
    with pytest.raises(SDBuildError, match="no images and no models in it") as refused:
        read_reference(tmp_path, [ASKED], "portable")

    assert "a folder of images" in str(refused.value)


def test_a_folder_says_it_in_every_format_and_by_the_numbers_of_one_stream(tmp_path):
    for number, name in ((1, "a-1.webp"), (2, "a-2.jpg")):
        files.save(Image.new("RGB", (8, 8)), tmp_path / name,
                   {**said(4), "seed": "4", "steps": "5", "host": "swift", "count": "2",
                    "number": str(number)}, "")

    found = read_reference(tmp_path, [ASKED], "portable")

    assert [(each.host, each.count, each.number) for each in found.requests] == [
        ("swift", 2, 1), ("swift", 2, 2)]


def test_what_an_image_was_made_from_is_found_beside_it_and_not_compared(tmp_path):
    put(tmp_path, "fox.png", **said(1) | {"image": "start.png"})
    put(tmp_path, "start.png")

    (request,) = read_reference(tmp_path, [ASKED], "portable").requests

    assert request.image == str(tmp_path / "start.png")


@pytest.mark.parametrize("settings, match", [
    ({"control": "Canny:/elsewhere/lines.png:0.5"}, "made from 'lines.png', which is neither"),
    ({"count": 3}, "a sheet of 3 images"),
])
def test_what_cannot_be_generated_again_says_why(tmp_path, settings, match):
    put(tmp_path, "fox.png", **said(1) | settings)

    with pytest.raises(SDBuildError, match=match):
        read_reference(tmp_path, [ASKED], "portable")


def test_images_are_compared_by_their_psnr_and_broken_ones_fail(tmp_path):
    put(tmp_path, "1.png", 100)
    found = read_reference(tmp_path, [ASKED], "portable")

    near, far, none = (compared(found.name, found.compared([made])) for made in (
        Image.new("RGB", (8, 8), (104, 104, 104)), Image.new("RGB", (8, 8), (200, 200, 200)), None))
    assert f"{20 * np.log10(255 / 4):.1f} dB  same" in near.table and not near.problem
    assert "quality: broken" in far.table and far.problem
    assert "NaN  broken" in none.table and none.problem
