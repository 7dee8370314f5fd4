"""Pictures to files, whole or not at all, with the settings that draw them again.

PNG has them in text chunks: one by one, and all in `parameters`, as AUTOMATIC1111's web UI writes
them and many tools read them. JPEG and WebP have the latter as the comment of their EXIF data, and
the former as JSON in its maker's note. All have the description that MochiDiffusion reads.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdbuild import __version__
from sdbuild.base.errors import SDBuildError
from sdbuild.base.parsing import json_object, shown
from sdbuild.bundle.hosts import SWIFT
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import parts

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY = 95
_EXIF_IFD, _USER_COMMENT, _MAKER_NOTE, _IMAGE_DESCRIPTION = 0x8769, 0x9286, 0x927C, 0x010E
_UNNAMED = ("host", "rng", "tokenizer", "spacing", "image", "mask", "control", "refiner", "count",
            "number")
"""Settings that the web UI has no word for, or none for all of their values."""
_SIGMAS = {"karras": "Karras", "exponential": "Exponential"}


def save(picture: Image.Image, path: Path, settings: Mapping[str, str], parameters: str,
         description: str = "") -> None:
    """Writes a picture in the format that its name ends with, over what is there.

    Args:
        description: the settings as MochiDiffusion reads them, if it can.
    Raises:
        SDBuildError: it cannot be written.
    """
    kind = _FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {"quality": _QUALITY,
                               "exif": _exif(settings, parameters, description)}
    if kind == "PNG":
        options = {"pnginfo": _chunks(settings, parameters)}
        if description:
            options["exif"] = _exif({}, "", description)
    if kind == "WEBP":
        options["lossless"] = True
    try:
        with _replacing(path) as file:
            picture.save(file, kind, **options)
    except OSError as error:
        raise SDBuildError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of another once it is whole."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    beside = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)  # as if it had been opened in its place
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _chunks(settings: Mapping[str, str], parameters: str) -> PngInfo:
    found = PngInfo()
    for name, value in {**settings, "parameters": parameters}.items():
        found.add_itxt(name, value)
    return found


def _exif(settings: Mapping[str, str], parameters: str, description: str) -> Image.Exif:
    found = Image.Exif()
    if settings:
        found.get_ifd(_EXIF_IFD)[_MAKER_NOTE] = json.dumps(settings).encode()
    if parameters:
        found.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be")
    if description:
        found[_IMAGE_DESCRIPTION] = description.encode()  # as text, Pillow would write ASCII
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings that are written in a file; empty if there are none.

    Raises:
        SDBuildError: the file cannot be read.
    """
    try:
        with Image.open(path) as file:
            if texts := getattr(file, "text", None):
                return dict(texts)
            note = file.getexif().get_ifd(_EXIF_IFD).get(_MAKER_NOTE)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SDBuildError(f"{shown(path)}: the text in it cannot be read: {error}",
                           hint="save it again") from error
    if not isinstance(note, bytes) or not note.startswith(b"{"):
        return {}  # a camera's own
    return json_object(note, f"{shown(path)}: its maker's note")


def settings(bundle: Bundle, request: Request, flagged: Sequence[bool | None]
             ) -> dict[str, str]:
    """Returns all that is needed to draw a file's pictures again, and how many of them were
    flagged."""
    checked = {} if flagged[0] is None else {
        "safety_checker": f"flagged {sum(map(bool, flagged))} of {len(flagged)}"}
    return {name: str(value) for name, value in {
        **_own(request), **checked, "bundle": bundle.description,
        "software": f"sdbuild {__version__}",
    }.items()}


def _own(request: Request) -> dict[str, object]:
    """Returns a request's settings for others: files are called by their names, as folders are
    nobody else's, and one image is not counted."""
    named = replace(
        request, image=request.image and Path(request.image).name,
        mask=request.mask and Path(request.mask).name,
        control=request.control and tuple(
            each._replace(image=Path(each.image).name) for each in request.control))
    return {name: value for name, value in named.settings().items()
            if (name, value) != ("count", 1)}


def parameters(bundle: Bundle, request: Request) -> str:
    """Returns the settings of a picture as AUTOMATIC1111's web UI writes them; what it has no word
    for is called as here."""
    scheduler, sigmas = parts(request.scheduler)
    sigmas = "karras" if request.karras else sigmas
    sampler = " ".join(filter(None, (next(iter(scheduler.others), scheduler.name),
                                     _SIGMAS.get(sigmas))))
    found: dict[str, object] = {
        "Steps": request.steps, "Sampler": sampler, "CFG scale": f"{request.guidance:g}",
        "Seed": request.seed, "Size": f"{bundle.width_px}x{bundle.height_px}",
        "Model": bundle.name, "Clip skip": bundle.clip_skip if bundle.clip_skip > 1 else None,
        "Denoising strength": None if request.image is None else request.strength,
        "RNG": {"torch": "CPU", "nvidia": "NV"}.get(request.rng or ""),
        **{name: value for name, value in _own(request).items() if name in _UNNAMED},
        "Version": f"sdbuild {__version__}",
    }
    line = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in found.items()
                     if value is not None)
    negative = f"\nNegative prompt: {request.negative}" if request.negative else ""
    return f"{request.prompt}{negative}\n{line}"


def mochi_description(bundle: Bundle, request: Request) -> str:
    """Returns the settings of a picture as MochiDiffusion reads them from a file that is dropped
    onto it; empty if it has no such scheduler or seed, on which it crashes, or no word for which
    of several it is.

    It takes pictures of versions of its own alone, from 2.2 on, so that the last word names one.

    Source:
        godly-devotion/MochiDiffusion at 996c7d4, `SDImage.swift` writes it, `Functions.swift` reads
        it.
    """
    scheduler = _MOCHIS.get(parts(request.scheduler)[0].name)
    if scheduler is None or request.seed >= SWIFT.seeds or (request.number or 1) > 1:
        return ""
    found = {
        "Include in Image": request.prompt, "Exclude from Image": request.negative,
        "Model": bundle.name, "Steps": request.steps, "Guidance Scale": f"{request.guidance:g}",
        "Seed": request.seed, "Size": f"{bundle.width_px}x{bundle.height_px}",
        "Scheduler": scheduler,
        "Generator": f"sdbuild {__version__}, in the form of MochiDiffusion 5.2",
    }
    return "; ".join(f"{name}: {str(value).replace('; ', ', ')}" for name, value in found.items())


_MOCHIS = {"pndm": "PNDM", "dpm": "DPM-Solver++"}
"""The schedulers that MochiDiffusion has, as it calls them."""


def _quoted(value: str) -> str:
    """Returns a value as JSON if it would end the line of settings, as the web UI does."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',:\n"') else value
