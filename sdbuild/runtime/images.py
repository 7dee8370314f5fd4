"""Pictures to numbers and back, as hosts convert them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sdbuild.base.errors import NotFinite, SDBuildError

_MOST_PIXELS = 1 << 26


def read(path: Path) -> Image.Image:
    """Returns the picture in a file, turned as its camera was.

    Raises:
        SDBuildError: it is none, or a huge one.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise SDBuildError(f"{path}: {file.width}x{file.height} pixels, expected at most "
                                   f"{_MOST_PIXELS}", hint="make it smaller first")
            found = ImageOps.exif_transpose(file)
            found.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError,
            Image.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or "not an image that Pillow reads"
        raise SDBuildError(f"{path}: {said}", hint="give a PNG, JPEG or WebP file") from error
    return found


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
                        hint="doit check names the operation that made them")
    levels = (array / 2 + 0.5).clip(0, 1).transpose(1, 2, 0) * 255  # -> (H, W, 3)
    return Image.fromarray(levels.round().astype(np.uint8))
