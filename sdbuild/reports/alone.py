"""Verdicts on images without a reference: what no bundle that works generates.

A verdict here never says that an image is good, only that it cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdbuild.bundle.inferred import CELL_PX
from sdbuild.bundle.request import Request
from sdbuild.reports.check import PROMPT, Judgement, shortened
from sdbuild.reports.verdict import SAME_DB

if TYPE_CHECKING:
    from PIL.Image import Image

_LEAST_CONTRAST = 1.0
"""The standard deviation of an image of one color, in levels of 255: at most this."""
_LEAST_STRUCTURE = 0.2
"""That of noise: at most this. Independent cells have 0.08 and less, the built-in model's images
0.54 and more; what its bundle with 2 bits generates has 0.38 to 0.63, so that it is not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """An image of a bundle, and why no bundle that works generates it; empty if one may."""

    prompt: str
    seed: int
    fault: str


def with_blank(requests: Sequence[Request]) -> list[Request]:
    """Returns requests, and the first of them without its prompt; only them if it has none, or
    follows an image as well."""
    first = requests[0]
    if first.image or first.control or not first.prompt:
        return [*requests]
    return [*requests, replace(first, prompt="")]


def alone(requests: Sequence[Request], made: Sequence[Image | None]) -> list[Alone]:
    """Returns the verdict on each image of some requests.

    Args:
        made: an image for each of `with_blank(requests)`.
    """
    found = [Alone(prompt=request.prompt, seed=request.seed, fault=fault(image))
             for request, image in zip(requests, made, strict=False)]
    if len(made) > len(requests) and not found[0].fault and _are_same(made[0], made[-1]):
        found[0] = replace(found[0], fault="the same without the prompt")
    return found


def fault(image: Image | None) -> str:
    """Returns why no bundle that works generates an image; empty if one may."""
    if image is None:
        return "not finite"
    import numpy as np

    pixels = np.asarray(image.convert("RGB"), np.float64)
    if pixels.std(axis=(0, 1)).max() <= _LEAST_CONTRAST:
        return "one color"
    return "noise" if structure(image) <= _LEAST_STRUCTURE else ""


def structure(image: Image) -> float:
    """Returns how much the cells of an image, each decoded from one of its latent, have to do with
    their neighbors: 0 for independent ones, 1 for one that changes little from cell to cell."""
    import numpy as np

    pixels = np.asarray(image.convert("RGB"), np.float64)
    height, width = (length // CELL_PX for length in pixels.shape[:2])
    cells = pixels[:height * CELL_PX, :width * CELL_PX].reshape(
        height, CELL_PX, width, CELL_PX, 3).mean(axis=(1, 3))
    steps = [np.diff(cells, axis=axis).ravel() for axis in (0, 1)]
    variance = np.mean((cells - cells.mean(axis=(0, 1))) ** 2)
    return float(1 - np.mean(np.concatenate(steps) ** 2) / (2 * variance)) if variance else 0.0


def _are_same(image: Image | None, other: Image | None) -> bool:
    from sdbuild.steps.pictures import psnr_db

    if image is None or other is None:
        return False
    found = psnr_db(image, other)
    return found is None or found >= SAME_DB


def judged_alone(requests: Sequence[Request], made: Sequence[Image | None]) -> Judgement:
    """Returns the judgement on a bundle's images, each by itself.

    Args:
        made: an image for each of `with_blank(requests)`.
    """
    found = alone(requests, made)
    is_broken = any(each.fault for each in found)
    lines = [f"{'picture':<{PROMPT}}{'seed':>5}  by itself"]
    lines += [f"{shortened(each.prompt)}{each.seed:>5}  {each.fault or 'no fault'}"
              for each in found]
    lines.append("quality: broken" if is_broken else
                 "quality: not judged: no reference to compare these images with")
    if not is_broken:
        return Judgement(table="\n".join(lines))
    return Judgement(table="\n".join(lines), problem="no bundle that works generates such images",
                     hint="if another prompt and seed= have the same fault, a model is converted "
                          "wrongly,\nor overflows fp16: sdbuild report lists where it loses "
                          "precision")
