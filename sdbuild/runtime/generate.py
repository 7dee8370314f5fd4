"""Pictures to files: settings in their text chunks, a contact sheet of several, timings."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from sdbuild import __version__
from sdbuild.base.errors import SDBuildError
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.pipeline import Pipeline, Result


def generate(
    bundle: Bundle, request: Request, out: Path, report: Path | None = None,
    predictor: str = "auto", weight_bytes: int | None = None,
) -> list[Path]:
    """Draws a request and writes its pictures; the files, `out` last.

    Several pictures go to `<out>-1.png`, `<out>-2.png`, …, and `out` is their contact sheet. Those
    that the bundle's safety checker flags are black, and named on the standard error.

    Raises:
        BundleError, MILError: the bundle cannot draw.
        SDBuildError: a file cannot be written.
    Units:
        weight_bytes: of decoded weights that the executor keeps of each component, all if None.
    """
    _check_places(out, report)
    pipeline = Pipeline(bundle, predictor, weight_bytes)
    _warn_of_what_is_left_out(pipeline, request)
    steps = request.count * request.steps
    with tqdm(total=steps, unit="step", disable=not sys.stderr.isatty(), leave=False,
              file=sys.__stderr__) as bar:  # which steers the terminal
        results = list(pipeline.draw(request, bar.update))
    numbered = [out.with_stem(f"{out.stem}-{i}") for i in range(1, request.count + 1)]
    files = [out] if request.count == 1 else numbered
    try:
        for path, result in zip(files, results, strict=True):
            result.image.save(path, "PNG", pnginfo=_settings(bundle, request, [result]))
        if request.count > 1:
            contact_sheet([r.image for r in results]).save(
                out, "PNG", pnginfo=_settings(bundle, request, results)
            )
            files = [*files, out]
        if report is not None:
            report.write_text(_timings(pipeline, results), "utf-8")
    except OSError as error:
        raise SDBuildError(f"{error.filename}: cannot be written: {error.strerror}") from error
    for path, result in zip(files, results, strict=False):
        if result.is_flagged:
            print(f"{path}: black, as the bundle's safety checker flags it", file=sys.stderr)
    return files


def _warn_of_what_is_left_out(pipeline: Pipeline, request: Request) -> None:
    for name in ("prompt", "negative"):
        if rest := pipeline.truncated_part(request, getattr(request, name)):
            print(f"warning: {name}: it is too long, so this is left out: {rest}", file=sys.stderr)


def _check_places(out: Path, report: Path | None) -> None:
    """Finds out before anything is drawn whether what will be drawn can be written."""
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
    """The pictures side by side, as near to a square as they go, or in so many columns."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def _settings(bundle: Bundle, request: Request, results: Sequence[Result]) -> PngInfo:
    """All that is needed to draw a file's pictures again, and how many of them were flagged."""
    text = PngInfo()
    flagged = sum(map(bool, (result.is_flagged for result in results)))
    is_checked = results[0].is_flagged is not None
    for name, value in {
        "prompt": request.prompt, "negative": request.negative, "seed": results[0].seed,
        "steps": request.steps, "guidance": request.guidance, "scheduler": request.scheduler,
        **({"safety_checker": f"flagged {flagged} of {len(results)}"} if is_checked else {}),
        "bundle": bundle.description, "software": f"sdbuild {__version__}",
    }.items():
        text.add_itxt(name, str(value))
    return text


def _timings(pipeline: Pipeline, results: Sequence[Result]) -> str:
    """The timings in seconds and the safety checker's verdicts, as JSON."""
    pictures = [
        {"seed": r.seed, "is_flagged": r.is_flagged,
         "seconds": {k: round(v, 3) for k, v in r.seconds.items()}}
        for r in results
    ]
    return json.dumps({"load_s": round(pipeline.load_s, 3), "pictures": pictures}, indent=2) + "\n"
