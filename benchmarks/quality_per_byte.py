"""Measures quality per byte: the same bits for all weights against bits allocated to each.

    python -m benchmarks.quality_per_byte [--prompts N] [--images] [BITS …]

Builds the built-in U-Net with palettes of BITS (3, 4, 5 and 6), where Core ML has them, and with as
many on average. The packed programs run on the portable executor, at moments of the images of
`recipes/tiny-emoji/evaluation.txt`: prompts and seeds that no calibration saw. Printed is the PSNR
of the guided noise to that of the original in fp32, and the bytes of the weight file; with
`--images` that of whole images, which the original's other networks make.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from sdbuild.base.filenames import contents
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.checkpoints.normalized import LATENTS, latents
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import Job
from sdbuild.mil.files.package import WEIGHT_FILE, read_package
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.quality.moments import Load, moments
from sdbuild.recipe.bits import PALETTE_BITS
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.settings import settings
from sdbuild.runtime.drawing import draw_each
from sdbuild.runtime.predictor import Predictor, load
from sdbuild.steps.originals import Original, drawing_bundle
from sdbuild.store import Store

_FIRST_SEED = 500
_COMPONENTS = {"components": "text_encoder,unet,vae_decoder", "palettize": "unet"}

Measure = Callable[[Predictor], list[float]]
"""Gives the PSNR in dB of what a U-Net gives for each prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A checkpoint of the built-in architecture in PyTorch and fp32, and what it is asked for."""

    bundle: Bundle
    requests: Sequence[Request]
    load: Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A variant's PSNR in dB for each prompt, and the bytes of its weights."""

    psnr_db: Sequence[float]
    size: int

    def __str__(self) -> str:
        """The mean, the standard deviation and the worst, and the bytes."""
        found = self.psnr_db
        return (f"{np.mean(found):.1f} ± {np.std(found):.1f} dB (worst {min(found):.1f}) | "
                f"{self.size:,}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, runs and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_per_byte")
    parser.add_argument("bits", nargs="*", type=int, default=[3, 4, 5, 6])
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    parser.add_argument("--images", action="store_true", help="whole images, not the noise")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        wanted = reference({}, Path(folder), options.prompts)
        measure = of_images(wanted) if options.images else of_noise(wanted)
        print("| bits | equal | bytes | own | bytes |\n| ---: | ---: | ---: | ---: | ---: |")
        for bits in options.bits:
            cells = [str(measured(words, measure)) if words else "|"
                     for words in (equal(bits), own(bits))]
            print(f"| {bits} | " + " | ".join(cells) + " |", flush=True)
    return 0


def equal(bits: int) -> dict[str, str]:
    """Returns the words for equal bits, none if Core ML has none; 3 came with iOS 18."""
    found = {"quant": str(bits)} if bits in PALETTE_BITS else {}
    return found | ({"target": "iOS18"} if bits == 3 else {})


def own(bits: int) -> dict[str, str]:
    """Returns the words for as many bits on average."""
    return {"quant": f"{bits}.0"}


def builder(words: Mapping[str, str]) -> Builder:
    """Returns the builder of a variant of the built-in model."""
    found = settings({"model": "tiny-emoji", **_COMPONENTS, **words})
    return Builder(plan(found.recipe), Store(found.cache))


def reference(words: Mapping[str, str], folder: Path, count: int) -> Reference:
    """Returns the original of a variant, with its files in a folder, and requests of the first
    `count` prompts."""
    made = builder({"quant": "none", **words})
    recipe = made.plan.recipe
    places = {}
    for name in ("text_encoder", "unet", "vae_decoder", "resources"):
        places[name] = folder / name
        made.store.checkout(made.make_all(f"download:{name}"), places[name], "")
    prompts = (BUILT_IN / "tiny-emoji" / "evaluation.txt").read_text("utf-8").splitlines()[:count]
    params = {"family": recipe.family.name, "width_px": recipe.network.width_px,
              "height_px": recipe.network.height_px, "prediction": recipe.network.prediction}
    job = Job(params=params, inputs=places, output=folder)
    return Reference(
        bundle=drawing_bundle(job, latents(places["vae_decoder"] / LATENTS)),
        requests=[replace(recipe.draw, prompt=prompt, seed=seed)
                  for seed, prompt in enumerate(prompts, _FIRST_SEED)],
        load=lambda name: Original(recipe.family.component(name), places[name], params),
    )


def of_noise(wanted: Reference) -> Measure:
    """Returns what measures the guided noise, at one moment of each image."""
    given = moments(wanted.bundle, wanted.requests, wanted.load, "unet", 1)
    scale = wanted.requests[0].guidance

    def noise(unet: Predictor) -> list[np.ndarray]:
        return [guided(unet.predict(moment)["noise_pred"], scale) for moment in given]

    first = noise(wanted.load("unet"))
    return lambda unet: [psnr_db(found, of_first, np.abs(of_first).max())
                         for found, of_first in zip(noise(unet), first, strict=True)]


def of_images(wanted: Reference) -> Measure:
    """Returns what measures images that a U-Net makes with the original's other networks."""
    def images(unet: Predictor) -> list[np.ndarray]:
        def network(name: str) -> Predictor:
            return unet if name == "unet" else wanted.load(name)

        drawn = draw_each(wanted.bundle, wanted.requests, network)
        return [np.asarray(image) for image in tqdm(drawn, "images", len(wanted.requests))]

    first = images(wanted.load("unet"))
    return lambda unet: [psnr_db(found, of_first, 255)
                         for found, of_first in zip(images(unet), first, strict=True)]


def guided(noise: np.ndarray, scale: float) -> np.ndarray:
    """Returns the noise that guidance makes of that of both prompts."""
    without, found = noise.astype(np.float32)
    return without + scale * (found - without)


def measured(words: Mapping[str, str], measure: Measure) -> Measured:
    """Returns the PSNR of a variant for each prompt, and the bytes of its weights."""
    made = builder(words)
    step = next(name for name in ("assign:unet", "palettize:unet") if name in made.plan.steps)
    with TemporaryDirectory() as folder:
        place = Path(folder, "packages")
        made.store.checkout(made.make_all(step), place, "")
        (package,) = contents(place, PACKAGE)
        return Measured(psnr_db=measure(load([package], "portable", "original")),
                        size=read_package(package).weight_path(WEIGHT_FILE).stat().st_size)


def psnr_db(found: np.ndarray, wanted: np.ndarray, peak: float) -> float:
    """PSNR in dB, of the largest number `peak`."""
    rms = np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float(20 * np.log10(peak / rms))


if __name__ == "__main__":
    sys.exit(main())
