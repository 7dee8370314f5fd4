"""pictures: what a bundle's compiled parts draw, measured against the pictures of the original.

PSNR is in dB, of 255 levels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.engine.stage import From, Job, Memory
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps import originals
from sdbuild.steps.parity import weight_bytes

if TYPE_CHECKING:
    from PIL import Image

    from sdbuild.runtime.predictor import Predictor

PICTURES = "pictures.json"

class Pictures(originals.DrawingStage):
    """Draws with the bundle's parts."""

    version = 1
    summary = "generate the same images with the bundle's parts, and compare them"
    memory = Memory(1_000_000_000, largest=8)  # weights that do not fit are decoded as used
    most_memory = Memory(2_000_000_000, 4.0)   # those of the largest component, decoded

    def inputs(self, recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> dict[str, From]:
        """Returns the compiled parts, and what they are compared with."""
        parts = {name: From(made[name]["compiled"]) for name in originals.drawing(recipe)}
        return parts | originals.resources(made) | {"originals": From("originals")}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the pictures, `1.png`, …, and `pictures.json`: prompt, seed and PSNR of each.

        PSNR is null where nothing differs; where a network gave numbers that are not finite, there
        is no picture, and `is_finite` is false.
        """
        from PIL import Image

        from sdbuild.runtime.predictor import load

        def loaded(name: str) -> Predictor:
            models = contents(job.inputs[name], COMPILED)
            return load(models, "portable", "original", weight_bytes(job))

        found = []
        for number, image in enumerate(originals.drawn(job, loaded), 1):
            request, psnr = job.params["requests"][number - 1], None
            name = originals.picture(number)
            if image is not None:
                image.save(job.output / name)
                psnr = psnr_db(image, Image.open(job.inputs["originals"] / name))
            found.append({"prompt": request["prompt"], "seed": request["seed"], "psnr_db": psnr,
                          "is_finite": image is not None})
        (job.output / PICTURES).write_text(json.dumps(found, indent=1), "utf-8")
        return {}


STAGE = Pictures()


def psnr_db(image: Image.Image, original: Image.Image) -> float | None:
    """PSNR in dB, None if the pictures are equal."""
    import numpy as np

    error = np.mean((np.asarray(image, np.float64) - np.asarray(original, np.float64)) ** 2)
    return None if error == 0 else round(float(20 * np.log10(255) - 10 * np.log10(error)), 2)
