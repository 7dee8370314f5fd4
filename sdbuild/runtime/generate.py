"""Pictures to files, one by one: what is said beside them, a contact sheet, a report."""

from __future__ import annotations

import json
import logging
import math
import platform
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SDBuildError
from sdbuild.base.machine import machine_bytes, processors
from sdbuild.base.units import counted
from sdbuild.bundle.host_notes import Scene, command_line, notes
from sdbuild.bundle.hosts import HOSTS
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime import files, images
from sdbuild.runtime.pipeline import Pipeline, Result
from sdbuild.runtime.trace import check_free, to_folder

_WEIGHT = re.compile(r"\([^()]+:\s*-?[\d.]+\)")
_EMBEDDING = re.compile(r"<(?!\|)[^<>\s]+>|embedding:\S+")

_MOST_LEFT_OUT = 300
"""Characters that a warning shows of the part of a prompt that is left out."""

LOG = logging.getLogger(__name__)


def generate(
    bundle: Bundle, request: Request, out: Path, report: Path | None = None,
    predictor: str = "auto", weight_bytes: int | None = None, trace: Path | None = None,
    previews: int | None = None,
) -> Iterator[Path]:
    """Draws a request and gives the files of its pictures, each as soon as it is written.

    Several pictures go to `<out>-1.png`, `<out>-2.png`, …, and `out`, given last, is their contact
    sheet. Those that the bundle's safety checker flags are black, and named on the standard error.

    Args:
        previews: of a picture that is not finished, `<out>-preview.png` is written every so many
            steps, and gone once it is.
    Raises:
        BundleError, MILError: the bundle cannot draw.
        SDBuildError: a file cannot be written.
    Units:
        weight_bytes: of decoded weights that the executor keeps of each component, all if None.
    """
    _check_places(out, report, trace)
    pipeline = Pipeline(bundle, predictor, weight_bytes)
    pipeline.load(request)
    for line in _warnings(pipeline, request, previews):
        LOG.warning("%s", line)
    results: list[Result] = []
    written: list[Path] = []
    started = time.monotonic()
    singles = HOSTS[request.host].singles(request)
    preview = _Previews(out.with_stem(f"{out.stem}-preview"), previews)
    drawn = _drawn(pipeline, request, trace, preview)
    for number, (single, result) in enumerate(zip(singles, drawn, strict=True), 1):
        path = out if len(singles) == 1 else out.with_stem(f"{out.stem}-{number}")
        _save(bundle, single, path, [result])
        preview.remove()
        if result.is_flagged:
            LOG.warning("%s: black, as the bundle's safety checker flags it", path)
        results.append(result)
        written.append(path)
        yield path
    if len(singles) > 1:
        _save(bundle, request, out, results)
        yield out
    if report is not None:
        _write_report(report, pipeline, request, results, written, time.monotonic() - started)
    if line := command_line(bundle, request):
        LOG.warning("on a Mac, the same image (55 dB or more): %s", line)


@dataclass(frozen=True, slots=True)
class _Previews:
    """Writes a picture as it is every so many steps, over the one before."""

    path: Path
    every: int | None

    def __call__(self, step: int, picture: Callable[[], Image.Image]) -> None:
        if self.every is not None and step % self.every == 0:
            files.save(picture(), self.path, {}, "")

    def remove(self) -> None:
        """Removes the last one."""
        if self.every is not None:
            self.path.unlink(missing_ok=True)


def _drawn(
    pipeline: Pipeline, request: Request, trace: Path | None, previews: _Previews
) -> Iterator[Result]:
    """Yields the pictures, with a bar on the terminal that `sys.__stderr__` is, which stands there
    only while one is drawn; so does a preview."""
    total = request.steps * len(request.numbers)
    with tqdm(unit="step", disable=not sys.stderr.isatty(), leave=False, total=total,
              dynamic_ncols=True, file=sys.__stderr__) as bar:
        def progress(steps: int) -> None:
            bar.total = steps * len(request.numbers)
            bar.update()
        try:
            for result in pipeline.draw(request, progress, to_folder(trace) if trace else None,
                                        previews):
                bar.clear()
                yield result
        finally:
            previews.remove()


def _save(bundle: Bundle, request: Request, path: Path, results: Sequence[Result]) -> None:
    """Writes a picture, or the contact sheet of several; says so if one is replaced."""
    if path.exists():
        LOG.warning("%s: the one that was there is replaced", path)
    sheet = results[0].image if len(results) == 1 else contact_sheet([r.image for r in results])
    files.save(sheet, path,
               files.settings(bundle, request, [r.is_flagged for r in results]),
               files.parameters(bundle, request), files.mochi_description(bundle, request))


def _warnings(pipeline: Pipeline, request: Request, previews: int | None) -> Iterator[str]:
    """Returns warnings: settings that were not followed, and what the host does otherwise."""
    for name in ("prompt", "negative"):
        prompt = getattr(request, name)
        if rest := pipeline.truncated_part(request, prompt):
            yield (f"warning: {name}: it is too long, so this is left out: "
                   f"{textwrap.shorten(rest, _MOST_LEFT_OUT, placeholder=' …')}")
        for found in _WEIGHT.findall(prompt):
            yield f"warning: {name}: {found} is read as words: hosts know no weights"
        for found in _EMBEDDING.findall(prompt):
            yield f"warning: {name}: {found} is read as words: the bundle has no such embedding"
    if previews is not None and previews >= request.steps:
        yield f"warning: previews={previews}: no preview of {counted(request.steps, 'step')}"
    scene = Scene(
        bundle=pipeline.bundle, request=request, batch=pipeline.batch(request),
        other_words=pipeline.prompts.other_words(request),
        image_size=(0, 0) if request.image is None else images.read(Path(request.image)).size,
    )
    for note in notes(scene):
        yield f"host={request.host}: {note}"


def _check_places(out: Path, report: Path | None, trace: Path | None) -> None:
    """Finds out before anything is drawn whether what will be drawn can be written."""
    if trace is not None:
        check_free(trace)
    if out.is_dir():
        raise SDBuildError(f"{out}: a folder, expected an image file")
    if report is not None and report.absolute() == out.absolute():
        raise SDBuildError(f"{out}: given as the image and as the report")
    for path in filter(None, (out, report)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SDBuildError(f"{path}: cannot be written: {error.strerror}") from error


def contact_sheet(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Returns the pictures side by side, as near to a square as they go, or in so many columns."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def _write_report(
    path: Path, pipeline: Pipeline, request: Request, results: Sequence[Result],
    written: Sequence[Path], seconds: float,
) -> None:
    """Writes settings, timings in seconds and the safety checker's verdicts, as JSON.

    The manifest has the digests of all files, so that its own is that of the bundle.
    """
    denoise_s = sum(r.seconds["denoise"] for r in results)
    steps = sum(r.steps for r in results)
    bundle = pipeline.bundle
    manifest = bundle.folder / MANIFEST
    content = {
        "settings": request.settings(),
        "bundle": {
            "name": bundle.name, "description": bundle.description, "folder": str(bundle.folder),
            "digest": digest_file(manifest) if manifest.is_file() else None,
        },
        "predictor": pipeline.predictor,
        "machine": {
            "system": platform.system(), "machine": platform.machine(),
            "processors": processors(), "memory_bytes": machine_bytes(),
        },
        "load_s": round(pipeline.load_s, 3), "total_s": round(seconds, 3),
        "steps_per_s": round(steps / denoise_s, 3) if denoise_s else None,
        "pictures": [
            {"path": str(file), "seed": r.seed, "is_flagged": r.is_flagged,
             "seconds": {k: round(v, 3) for k, v in r.seconds.items()}}
            for file, r in zip(written, results, strict=True)
        ],
    }
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise SDBuildError(f"{path}: cannot be written: {error.strerror}") from error
