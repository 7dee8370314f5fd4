"""Pictures to numbers and back, as hosts convert them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sdbuild.base.errors import NotFinite, SDBuildError

_MOST_PIXELS = 1 << 26
_WHITE_OF_16_BITS = 65535
_SCALED_TO_16_BITS = ("PNG", "PPM")
"""Formats whose numbers Pillow gives as 32 bits where they have 16."""

_OTHERS = {"I": "32-bit integers", "F": "floating-point numbers"}


def read(path: Path) -> Image.Image:
    """Returns the picture in a file, in RGB or RGBA with 8 bits, turned as its camera was.

    Raises:
        SDBuildError: it is none, a huge one, or one whose white is not known.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise SDBuildError(f"{path}: {file.width}x{file.height} pixels, expected at most "
                                   f"{_MOST_PIXELS}", hint="make it smaller first")
            found, kind = ImageOps.exif_transpose(file), file.format
            found.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError,
            Image.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or "not an image that Pillow reads"
        raise SDBuildError(f"{path}: {said}", hint="give a PNG, JPEG or WebP file") from error
    try:
        return _of_8_bits(found, kind in _SCALED_TO_16_BITS)
    except ValueError as error:
        raise SDBuildError(f"{path}: pixels of {_OTHERS.get(found.mode, found.mode)}, expected "
                           "8 or 16 bits", hint="save it as a PNG of 8 or 16 bits") from error


def _of_8_bits(picture: Image.Image, is_scaled: bool) -> Image.Image:
    """Returns a picture in RGB, or RGBA if there is transparency in it. Pillow clips what has more
    bits; here it is scaled.

    Args:
        is_scaled: white is that of 16 bits in a picture of 32.
    Raises:
        ValueError: it is not known which number is white, or there is no way to RGB.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and is_scaled):
        levels = np.asarray(picture).astype(np.float64)
        scaled = Image.fromarray((levels * 255 / _WHITE_OF_16_BITS).round().astype(np.uint8))
        clear = picture.info.get("transparency")
        if clear is None:
            return scaled.convert("RGB")
        found = scaled.convert("RGBA")
        found.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
        return found
    if picture.mode in ("I", "F"):
        raise ValueError(picture.mode)
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns a picture of a size in pixels: cut at its longer sides, then resized."""
    if picture.size == size:
        return picture
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def to_array(picture: Image.Image, lowest: float = -1, blackens: bool = False) -> np.ndarray:
    """Returns a picture as networks take it, from `lowest` to 1.

    Args:
        blackens: transparent pixels are -1, whatever the lowest.
    Shapes:
        returns (1, 3, H, W).
    """
    rgba = np.asarray(picture.convert("RGBA"), np.float32)  # (H, W, 4)
    levels = rgba[..., :3] / 255 * (1 - lowest) + lowest
    if blackens:
        levels[rgba[..., 3] == 0] = -1
    return levels.transpose(2, 0, 1)[None]


def to_picture(array: np.ndarray, name: str) -> Image.Image:
    """Returns the picture of what a decoder gave.

    Args:
        name: of the bundle, for errors.
    Shapes:
        array: (3, H, W), from -1 to 1.
    Raises:
        NotFinite: there is NaN or infinity in it, which would be a black picture.
    """
    if not np.isfinite(array).all():
        raise NotFinite(f"{name}: the decoder gave numbers that are not finite",
                        hint="sdbuild check names the operation that made them")
    levels = (array / 2 + 0.5).clip(0, 1).transpose(1, 2, 0) * 255  # -> (H, W, 3)
    return Image.fromarray(levels.round().astype(np.uint8))
