"""Images to compare a bundle's with: a folder of images, or those of another bundle."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SDBuildError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.base.units import counted
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.places import opened
from sdbuild.bundle.request import Request
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.recipe.fields import DRAW_FIELDS, INPUT_FIELDS
from sdbuild.recipe.tables import values_of
from sdbuild.reports.verdict import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_NEEDED = {"prompt", "seed", "steps"}
"""The settings without which an image does not say how it was generated."""

Ask = Callable[[Bundle], Sequence[Request]]
"""Gives what is asked of a bundle, one request for each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Images to compare with, what each was asked by, and where they are from; None where one is
    not finite."""

    name: str
    requests: tuple[Request, ...]
    images: tuple[Image | None, ...]

    def compared(self, made: Sequence[Image | None]) -> list[Picture]:
        """Returns the images that a bundle generated for the same requests, beside these."""
        return [Picture(prompt=request.prompt, seed=request.seed, psnr_db=found)
                for request, found in zip(self.requests, _psnrs(made, self.images), strict=True)]


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


def read_reference(
    place: Path, asked: Sequence[Request], predictor: str, weight_bytes: int | None = None
) -> Reference:
    """Returns the images of a folder, or those that a finished bundle generates.

    Images are of what they say themselves, in the settings that `sdbuild generate` writes into PNG;
    where none says anything, of what is asked, in the order of their names.

    Raises:
        BundleError: there is neither.
        SDBuildError: an image cannot be read, or says nothing while others do.
        RecipeError: its settings are not what they may be.
    """
    if files := _images(place):
        return _of_files(place, files, asked)
    with opened(place) as (bundle, _):
        return Reference(name=f"the bundle {place}", requests=tuple(asked),
                         images=tuple(generated(bundle, asked, predictor, weight_bytes)))


def _images(place: Path) -> list[Path]:
    """Returns the images of a folder of images, in the order of the numbers in their names; a
    contact sheet, `fox.png` beside `fox-1.png`, is none of them. No files if it is a bundle."""
    if not place.is_dir():
        return []
    names = contents(place)
    if any(path.name == MANIFEST or path.suffix in (COMPILED, PACKAGE) for path in names):
        return []
    found = [path for path in names if path.suffix.lower() in _SUFFIXES and path.is_file()]
    stems = {path.stem for path in found}
    return sorted((path for path in found if f"{path.stem}-1" not in stems), key=_order)


def _order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part)
            for part in re.split(r"(\d+)", path.name)]


def _of_files(place: Path, files: Sequence[Path], asked: Sequence[Request]) -> Reference:
    from sdbuild.runtime import images

    pictures = tuple(images.read(path) for path in files)
    said = [_request(path) for path in files]
    requests = [request for request in said if request is not None]
    if requests and len(requests) < len(said):
        path = files[said.index(None)]
        raise SDBuildError(f"{shown(path)}: no settings in it, which other images have",
                           hint="sdbuild generate writes them into PNG; take the others away, or "
                                "their settings")
    if not requests:
        if len(asked) != len(files):
            raise SDBuildError(f"{shown(place)}: {counted(len(files), 'image')} without settings, "
                               f"and {len(asked)} asked for",
                               hint="say what they are of: prompt=, seed= of the first, count=")
        requests = list(asked)
    return Reference(name=f"the images in {place}", requests=tuple(requests), images=pictures)


def _request(path: Path) -> Request | None:
    """Returns what an image says that it is of; None if it says nothing."""
    found = _text(path)
    if not found.keys() >= _NEEDED:
        return None
    known = {each.name for each in fields(Request)}
    own = {name: value for name, value in found.items() if name in known and name != "count"}
    return Request(**values_of((*DRAW_FIELDS, *INPUT_FIELDS), own, {}, str(shown(path))))


def _text(path: Path) -> dict[str, Any]:
    from PIL import Image

    try:
        with Image.open(path) as file:
            return dict(getattr(file, "text", {}))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SDBuildError(f"{shown(path)}: the text in it cannot be read: {error}",
                           hint="save it again") from error


def _psnrs(made: Sequence[Image | None], originals: Sequence[Image | None]) -> Iterator[float]:
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
