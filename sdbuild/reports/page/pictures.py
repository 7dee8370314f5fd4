"""The images of a report: generated with a bundle, compared, and made small enough for a page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_PX = 512
_LOSSLESS_PX = 128 * 128
_QUALITY = 90


def singles(request: Request) -> tuple[Request, ...]:
    """Returns a request for several images as requests for one each, seed by seed."""
    return tuple(replace(request, seed=request.seed + i, count=1) for i in range(request.count))


def generated(
    bundle: Bundle, requests: Sequence[Request], predictor: str, weight_bytes: int | None = None
) -> list[Image | None]:
    """Returns the image of each request, None where it is not finite.

    Raises:
        BundleError, MILError: the bundle cannot draw.
    """
    from sdbuild.runtime.drawing import draw_each
    from sdbuild.runtime.networks import Networks

    return list(draw_each(bundle, requests, Networks(bundle, predictor, weight_bytes).part))


def psnrs(made: Sequence[Image | None], originals: Sequence[Image | None]) -> Iterator[float]:
    """Yields the PSNR in dB of each image to its original: NaN where one is missing, infinity where
    nothing differs. An original of another size is fitted to the image's."""
    from sdbuild.runtime.images import fitted
    from sdbuild.steps.pictures import psnr_db

    for image, original in zip(made, originals, strict=True):
        if image is None or original is None:
            yield math.nan
            continue
        found = psnr_db(image.convert("RGB"), fitted(original.convert("RGB"), image.size))
        yield math.inf if found is None else found


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
