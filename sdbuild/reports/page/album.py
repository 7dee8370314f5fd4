"""The images of a report, made small enough for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_PX = 512
_LOSSLESS_PX = 128 * 128
_QUALITY = 90


class Album:
    """Images for a page, each once, by the digest of its pixels."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}

    def add(self, image: Image | None) -> str:
        """Takes an image, and returns its digest; an empty one for None."""
        if image is None:
            return ""
        found = image.convert("RGB")
        name = xxhash.xxh3_128_hexdigest(repr(found.size).encode() + found.tobytes())
        if name not in self.pictures:
            found.thumbnail((_LARGEST_PX, _LARGEST_PX))
            is_small = found.width * found.height <= _LOSSLESS_PX
            file = io.BytesIO()
            found.save(file, "WEBP", lossless=is_small, quality=_QUALITY)
            self.pictures[name] = file.getvalue()
        return name
