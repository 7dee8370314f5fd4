"""pictures: what a bundle's compiled parts draw, measured against the pictures of the original.

PSNR is in dB, of 255 levels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.engine.step import Job
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps import originals
from sdbuild.steps.parity import weight_bytes

if TYPE_CHECKING:
    from PIL import Image

    from sdbuild.runtime.predictor import Predictor

VERSION = 1
TOOLS = originals.TOOLS


def params(recipe: Recipe) -> dict[str, Any]:
    """What decides the pictures beside the compiled parts."""
    return originals.params(recipe)


def run(job: Job) -> dict[str, Any]:
    """Writes the pictures, `1.png`, …, and `pictures.json`: prompt, seed and PSNR of each.

    PSNR is null where nothing differs; where a network gave numbers that are not finite, there is
    no picture, and `is_finite` is false.
    """
    from PIL import Image

    from sdbuild.runtime.predictor import load

    def loaded(name: str) -> Predictor:
        models = contents(job.inputs[name], ".mlmodelc")
        return load(models, "portable", "original", weight_bytes(job))

    found = []
    for number, image in enumerate(originals.drawn(job, loaded), 1):
        request, psnr = job.params["requests"][number - 1], None
        if image is not None:
            image.save(job.output / f"{number}.png")
            psnr = psnr_db(image, Image.open(job.inputs["originals"] / f"{number}.png"))
        found.append({"prompt": request["prompt"], "seed": request["seed"], "psnr_db": psnr,
                      "is_finite": image is not None})
    (job.output / "pictures.json").write_text(json.dumps(found, indent=1), "utf-8")
    return {}


def psnr_db(image: Image.Image, original: Image.Image) -> float | None:
    """PSNR in dB, None if the pictures are equal."""
    import numpy as np

    error = np.mean((np.asarray(image, np.float64) - np.asarray(original, np.float64)) ** 2)
    return None if error == 0 else round(float(20 * np.log10(255) - 10 * np.log10(error)), 2)
