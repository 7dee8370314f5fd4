"""Images to compare a bundle's with: a folder of images, or those of another bundle."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import BundleError, SDBuildError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.base.units import counted
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.places import has_bundle, opened
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

    Images are of what they say themselves, in the settings that `sdbuild generate` writes; where
    none says anything, of what is asked, in the order of their names.

    Raises:
        BundleError: there is neither.
        SDBuildError: an image cannot be read, or says nothing while others do.
        RecipeError: its settings are not what they may be.
    """
    if files := _images(place):
        return _of_files(place, files, asked)
    if place.is_dir() and not has_bundle(place):
        raise BundleError(f"{shown(place)}: no images and no models in it",
                          hint=f"against= takes a folder of images ({', '.join(_SUFFIXES)}) or a "
                               "finished bundle")
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

    said = {path: _request(path) for path in files}
    requests = [request for request in said.values() if request is not None]
    begun = {name for request in requests for name in _inputs(request)}
    if requests:
        files = [path for path in files if said[path] or str(path.absolute()) not in begun]
    pictures = tuple(images.read(path) for path in files)
    if len(requests) not in (0, len(files)):
        path = next(path for path in files if said[path] is None)
        raise SDBuildError(f"{shown(path)}: no settings in it, which other images have",
                           hint="sdbuild generate writes them; take the others away, or their "
                                "settings")
    if not requests:
        if len(asked) != len(files):
            raise SDBuildError(f"{shown(place)}: {counted(len(files), 'image')} without settings, "
                               f"and {len(asked)} asked for",
                               hint="say what they are of: prompt=, seed= of the first, count=")
        requests = list(asked)
    return Reference(name=f"the images in {place}", requests=tuple(requests), images=pictures)


def _request(path: Path) -> Request | None:
    """Returns what an image says that it is of; None if it says nothing.

    Raises:
        RecipeError, SDBuildError: it is of several, or of files that are not there.
    """
    from sdbuild.runtime.files import read_settings

    found = read_settings(path)
    if not found.keys() >= _NEEDED:
        return None
    known = {each.name for each in fields(Request)}
    own = {name: value for name, value in found.items() if name in known}
    request = Request(**values_of((*DRAW_FIELDS, *INPUT_FIELDS), own, {}, str(shown(path))))
    if request.number is None and request.count > 1:
        raise SDBuildError(f"{shown(path)}: a sheet of {request.count} images, expected one",
                           hint="give the images that it is made of, which are written beside it")

    def beside(file: str) -> str:
        return _beside(path, Path(file).name)

    return replace(
        request, image=request.image and beside(request.image),
        mask=request.mask and beside(request.mask),
        control=request.control and tuple(
            each._replace(image=beside(each.image)) for each in request.control))


def _beside(path: Path, name: str) -> str:
    """Returns where a file is that an image was made from, of which it has the name alone.

    Raises:
        SDBuildError: it is neither beside the image nor in the current folder.
    """
    for folder in (path.parent, Path()):
        if (folder / name).is_file():
            return str((folder / name).absolute())
    raise SDBuildError(f"{shown(path)}: it was made from {shown(name)}, which is neither beside it "
                       "nor in the current folder", hint=f"put {shown(name)} beside it")


def _inputs(request: Request) -> list[str]:
    return [file for file in (request.image, request.mask,
                              *(each.image for each in request.control or ())) if file]


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
