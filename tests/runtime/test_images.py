"""Pictures that people bring: whatever their pixels are, white is white and nothing is clipped."""

import numpy as np
import pytest
from PIL import Image

from sdbuild.base.errors import SDBuildError
from sdbuild.runtime import images

LEVEL = 20_000
"""Of 65535: 78 of 255."""
GREY = np.full((8, 8), LEVEL, np.uint16)


def palette():
    found = Image.new("P", (8, 8), 1)
    found.putpalette([0, 0, 0, 78, 78, 78])
    return found


def pgm():
    return b"P5 8 8 65535\n" + GREY.astype(">u2").tobytes()


@pytest.mark.parametrize("name, picture", [
    ("a.png", Image.fromarray(GREY)),
    ("a.tif", Image.fromarray(GREY)),
    ("a.png", palette()),
    ("a.png", Image.new("LA", (8, 8), (78, 255))),
    ("a.tif", Image.new("CMYK", (8, 8), (177, 177, 177, 0))),
])
def test_a_grey_is_the_same_grey_in_every_kind_of_pixels(tmp_path, name, picture):
    path = tmp_path / name
    picture.save(path)

    found = images.read(path)

    assert images.to_array(found, lowest=0)[0, :, 4, 4] == pytest.approx(LEVEL / 65535, abs=2e-3)
    assert found.convert("L").getpixel((4, 4)) == 78


def test_a_grey_map_of_16_bits_is_scaled(tmp_path):
    (tmp_path / "a.pgm").write_bytes(pgm())

    assert images.read(tmp_path / "a.pgm").convert("L").getextrema() == (78, 78)


@pytest.mark.parametrize("picture, options", [
    (palette(), {"transparency": 1}), (Image.fromarray(GREY), {"transparency": LEVEL}),
    (Image.new("LA", (8, 8), (78, 0)), {})])
def test_what_is_transparent_stays_so(tmp_path, picture, options):
    picture.save(tmp_path / "a.png", **options)

    found = images.to_array(images.read(tmp_path / "a.png"), lowest=0, blackens=True)

    assert (found == -1).all()


@pytest.mark.parametrize("pixels, said", [
    (GREY.astype(np.float32), "floating-point numbers"),
    (GREY.astype(np.int32), "32-bit integers"),
])
def test_where_nobody_says_what_is_white_the_file_is_refused_by_name(tmp_path, pixels, said):
    Image.fromarray(pixels).save(tmp_path / "depth.tif")

    with pytest.raises(SDBuildError, match=rf"depth\.tif: pixels of {said}") as refused:
        images.read(tmp_path / "depth.tif")

    assert "PNG of 8 or 16 bits" in str(refused.value)
