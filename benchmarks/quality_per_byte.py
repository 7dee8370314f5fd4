"""Measures quality per byte: the same bits for all weights against bits allocated to each.

    python -m benchmarks.quality_per_byte [--prompts N] [BITS …]

Builds the built-in U-Net with palettes of BITS (3, 4 and 6) and with as many on average. The packed
programs run on the portable executor, at moments on the way of the images of
`recipes/tiny-emoji/evaluation.txt`: prompts and seeds that no calibration saw. Printed is the PSNR
of the guided noise to that of the original in fp32, and the bytes of the weight file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sdbuild.base.filenames import contents
from sdbuild.bundle.request import Request
from sdbuild.checkpoints.normalized import Latents
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import Job
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import WEIGHT_FILE, read_package
from sdbuild.mil.files.read import read_model
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.quality.moments import Moment, moments
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.settings import settings
from sdbuild.steps.originals import Original, drawing_bundle
from sdbuild.store import Store

_FIRST_SEED = 500
_COMPONENTS = {"components": "text_encoder,unet", "palettize": "unet"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, runs and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_per_byte")
    parser.add_argument("bits", nargs="*", type=int, default=[3, 4, 6])
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        load, requests, job = original(Path(folder), options.prompts)
        given = moments(drawing_bundle(job, Latents(scaling_factor=1.0)), requests, load, "unet", 1)
        unet, scale = load("unet"), requests[0].guidance
        wanted = [guided(unet.predict(moment)["noise_pred"], scale) for moment in given]
        print("| bits | equal | bytes | own | bytes |\n| ---: | ---: | ---: | ---: | ---: |")
        for bits in options.bits:
            cells = [measured(words, given, wanted, scale, Path(folder))
                     for words in (equal(bits), {"quant": f"{bits}.0"})]
            print(f"| {bits} | " + " | ".join(cells) + " |", flush=True)
    return 0


def equal(bits: int) -> dict[str, str]:
    """Returns the words for equal bits; 3 came with iOS 18."""
    return {"quant": str(bits)} | ({"target": "iOS18"} if bits == 3 else {})


def builder(words: dict[str, str]) -> Builder:
    """Returns the builder of a variant of the built-in model."""
    found = settings({"model": "tiny-emoji", **_COMPONENTS, **words})
    return Builder(plan(found.recipe), Store(found.cache))


def original(folder: Path, count: int) -> tuple:
    """Returns what loads the original's networks, the requests, and where its tokenizer is."""
    made = builder({"quant": "none"})
    recipe = made.plan.recipe
    places = {}
    for name in ("text_encoder", "unet", "resources"):
        places[name] = folder / name
        made.store.checkout(made.make_all(f"download:{name}"), places[name], "")
    prompts = (BUILT_IN / "tiny-emoji" / "evaluation.txt").read_text("utf-8").splitlines()[:count]
    requests: list[Request] = [replace(recipe.draw, prompt=prompt, seed=seed)
                               for seed, prompt in enumerate(prompts, _FIRST_SEED)]
    params = {"family": recipe.family.name, "width_px": recipe.network.width_px,
              "height_px": recipe.network.height_px, "prediction": recipe.network.prediction}
    job = Job(params=params, inputs=places, output=folder)
    return (lambda name: Original(recipe.family.component(name), places[name], params),
            requests, job)


def guided(noise: np.ndarray, scale: float) -> np.ndarray:
    """Returns the noise that guidance makes of that of both prompts."""
    without, found = noise.astype(np.float32)
    return without + scale * (found - without)


def measured(
    words: dict[str, str], given: Sequence[Moment], wanted: Sequence[np.ndarray], scale: float,
    folder: Path,
) -> str:
    """Returns the mean and the worst PSNR of a variant, and the bytes of its weights."""
    made = builder(words)
    step = next(name for name in ("assign:unet", "palettize:unet") if name in made.plan.steps)
    place = folder / "-".join(words.values())
    made.store.checkout(made.make_all(step), place, "")
    (package,) = contents(place, PACKAGE)
    executor = Executor(read_model(package))
    found = [psnr_db(guided(executor.predict(moment)["noise_pred"], scale), noise)
             for moment, noise in zip(given, wanted, strict=True)]
    size = read_package(package).weight_path(WEIGHT_FILE).stat().st_size
    return f"{np.mean(found):.1f} dB (worst {min(found):.1f}) | {size:,}"


def psnr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    """PSNR in dB, of the largest number that is wanted."""
    rms = np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float(20 * np.log10(np.abs(wanted).max() / rms))


if __name__ == "__main__":
    sys.exit(main())
