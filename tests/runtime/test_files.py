"""Files of pictures: whole or not at all, with their settings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdbuild.base.errors import SDBuildError
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Control, Request
from sdbuild.runtime import files

BUNDLE = Bundle(
    folder=Path("/bundle"), name="mine", family="sd", width_px=512, height_px=768,
    attention="original", scale_factor=0.18215, pad_token="<|endoftext|>",
    prediction_type="epsilon", scheduler={}, models={}, defaults={}, description="mine, fp16")
REQUEST = Request(prompt="a fox, red", negative="a dog", seed=3, steps=20, guidance=7.5,
                  scheduler="dpm_karras", count=1)
PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def test_parameters_are_written_as_by_the_web_ui_of_automatic1111():
    """Its reader splits the last line at commas and takes `Negative prompt:` before it."""
    first, negative, line = files.parameters(BUNDLE, REQUEST).split("\n")
    found = dict(part.split(": ", 1) for part in line.split(", "))

    assert (first, negative) == ("a fox, red", "Negative prompt: a dog")
    assert {k: found[k] for k in ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model")} == {
        "Steps": "20", "Sampler": "DPM++ 2M Karras", "CFG scale": "7.5", "Seed": "3",
        "Size": "512x768", "Model": "mine"}


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.webp", "a.jpg", "a.jpeg"])
def test_every_format_has_the_picture_and_its_parameters(tmp_path, name):
    path = tmp_path / name

    files.save(PICTURE, path, {"prompt": "füchsin"}, "füchsin\nSteps: 1")

    with Image.open(path) as found:
        assert np.abs(np.asarray(found.convert("RGB"), int) - np.asarray(PICTURE)).max() < 12
        if name.lower().endswith(".png"):
            text = found.text
            assert (text["parameters"], text["prompt"]) == ("füchsin\nSteps: 1", "füchsin")
        else:
            comment = found.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0"
            assert comment[8:].decode("utf-16-be") == "füchsin\nSteps: 1"


OF_SWIFT = replace(
    REQUEST, host="swift", count=2, number=2, image="/Users/me/secret/start.png",
    control=(Control("Canny", "/Users/me/secret/lines.png", 0.5),))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_every_format_says_what_generates_its_picture_again_without_folders(tmp_path, name):
    path = tmp_path / name
    parameters = files.parameters(BUNDLE, OF_SWIFT)
    files.save(PICTURE, path, files.settings(BUNDLE, OF_SWIFT, [None]), parameters)

    found = files.read_settings(path)

    assert {key: found[key] for key in ("host", "count", "number", "image", "control")} == {
        "host": "swift", "count": "2", "number": "2", "image": "start.png",
        "control": "Canny:lines.png:0.5"}
    assert 'host: swift, image: start.png, control: "Canny:lines.png:0.5"' in parameters
    assert b"secret" not in path.read_bytes() and "secret" not in parameters


def test_a_cameras_own_note_is_no_setting(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = b"Apple iOS\0\0\1MM"
    PICTURE.save(tmp_path / "a.jpg", exif=exif)

    assert files.read_settings(tmp_path / "a.jpg") == {}


def fields_of_mochi(path):
    """The fields that MochiDiffusion takes from a file: of the description, which ImageIO gives as
    that of TIFF, split as its `Functions.swift` does."""
    with Image.open(path) as found:
        text = found.getexif()[0x010E]
    return dict(field.split(": ", 1) for field in text.split("; "))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_mochi_diffusion_reads_the_settings_of_a_picture(tmp_path, name):
    request = replace(REQUEST, prompt="a fox; Seed: none", negative="")

    files.save(PICTURE, tmp_path / name, {}, "x", files.mochi_description(BUNDLE, request))

    found = fields_of_mochi(tmp_path / name)
    version = found.pop("Generator").rpartition(" ")[2]
    assert tuple(map(int, version.split("."))) >= (2, 2), "it passes over older ones"
    assert found == {
        "Include in Image": "a fox, Seed: none", "Exclude from Image": "", "Model": "mine",
        "Steps": "20", "Guidance Scale": "7.5", "Seed": "3", "Size": "512x768",
        "Scheduler": "DPM-Solver++"}


@pytest.mark.parametrize("changed", [
    {"scheduler": "euler_a"}, {"seed": 1 << 32}, {"host": "swift", "count": 2, "number": 2}])
def test_mochi_diffusion_is_given_nothing_that_it_crashes_on_or_reads_as_another(changed):
    assert files.mochi_description(BUNDLE, replace(REQUEST, **changed)) == ""


def test_png_and_webp_lose_nothing(tmp_path):
    for name in ("a.png", "a.webp"):
        files.save(PICTURE, tmp_path / name, {}, "")
        assert (np.asarray(Image.open(tmp_path / name)) == np.asarray(PICTURE)).all()


def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    files.save(PICTURE, path, {}, "first")
    before = path.read_bytes()

    def full(self, file, *_, **__):
        file.write(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SDBuildError, match=r"a\.png: cannot be written: No space left on device"):
        files.save(PICTURE, path, {}, "second")

    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
