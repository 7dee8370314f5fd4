"""Bits by the rule of Apple's mixed-bit recipes, against those of a calibration, at equal bytes.

    python -m benchmarks.apple_bits [--prompts N] [--images] [--one-step] [BITS …]

Apple's `mixed_bit_compression_pre_analysis` palettizes one layer at a time, at each number of bits,
and compares the latents of eight prompts after one step with the original's. A layer gets the
fewest bits whose mean PSNR is above a threshold, and 16 if none is. Here that is done for every
weight of the built-in U-Net that sdbuild palettizes, on the guided noise of eight calibration
prompts: at two moments of each image, or with `--one-step` at that of an image of one step, as
Apple's. Of all thresholds the highest is taken whose weights fit into the bytes of `quant=BITS.0`
(3, 4 and 5). Both are measured as by `quality_per_byte`.

Source:
    apple/ml-stable-diffusion at e12202c, `mixed_bit_compression_pre_analysis.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.quality_per_byte import (
    Reference,
    builder,
    guided,
    measured,
    of_images,
    of_noise,
    own,
    psnr_db,
    reference,
)
from sdbuild.mil.compress.kmeans import histogram, indices, palette
from sdbuild.models.parameters import NET
from sdbuild.quality.moments import Moment, moments
from sdbuild.recipe.bits import BITS, UNPACKED
from sdbuild.recipe.project import BUILT_IN
from sdbuild.steps.originals import Original

_WIDTHS = (1, 2, 4, 6, 8)
_PROMPTS = 8
_HALF_BYTES = 2

Ratings = Mapping[str, Mapping[int, float]]
"""The mean PSNR in dB that is left with one weight alone at each number of bits, by its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Rates all weights, builds both ways and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apple_bits")
    parser.add_argument("bits", nargs="*", type=int, default=[3, 4, 5])
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    parser.add_argument("--images", action="store_true", help="whole images, not the noise")
    parser.add_argument("--one-step", action="store_true", help="rate weights by a single step")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = reference({}, folder / "networks", options.prompts)
        measure = of_images(wanted) if options.images else of_noise(wanted)
        unet = wanted.load("unet")
        assert isinstance(unet, Original)
        weights = _weights(unet, allocated(4, folder))
        rated = ratings(unet, weights, rated_by(wanted, has_one=options.one_step),
                        wanted.requests[0].guidance)
        print("| bits | Apple's rule | bytes | own | bytes |\n| ---: | ---: | ---: | ---: | ---: |")
        for bits in options.bits:
            budget = _bytes(weights, allocated(bits, folder))
            chosen = by_threshold(rated, weights, budget)
            file = folder / f"{bits}.json"
            file.write_text(json.dumps({"schema": 1, "components": {"unet": chosen}}))
            cells = [str(measured(words, measure)) for words in ({"bits": str(file)}, own(bits))]
            print(f"| {bits} | " + " | ".join(cells) + " |", flush=True)
    return 0


def allocated(bits: int, folder: Path) -> Mapping[str, int]:
    """Returns the bits of each weight with so many on average, by our calibration."""
    made = builder(own(bits))
    place = folder / f"allocated-{bits}"
    if not place.exists():
        made.store.checkout(made.make_all("allocate:unet"), place, "")
    found: Mapping[str, int] = json.loads((place / BITS).read_text())["components"]["unet"]
    return found


def rated_by(wanted: Reference, *, has_one: bool) -> list[Moment]:
    """Returns what the U-Net is given on the way of images of the first calibration prompts, which
    may have one step."""
    text = (BUILT_IN / "tiny-emoji" / "calibration.txt").read_text("utf-8")
    first = replace(wanted.requests[0], steps=1) if has_one else wanted.requests[0]
    requests = [replace(first, prompt=prompt, seed=seed)
                for seed, prompt in enumerate(text.splitlines()[:_PROMPTS])]
    return moments(wanted.bundle, requests, wanted.load, "unet", 1 if has_one else 2)


def ratings(
    unet: Original, weights: Mapping[str, torch.nn.Parameter], given: Sequence[Moment],
    scale: float,
) -> Ratings:
    """Returns how well the guided noise is kept with one weight at a time in palettes."""
    def noise() -> list[np.ndarray]:
        return [guided(unet.predict(moment)["noise_pred"], scale) for moment in given]

    wanted, found = noise(), {}
    for name, weight in tqdm(weights.items(), "weights"):
        before, of_bits = weight.detach().clone(), {}
        for bits in _WIDTHS:
            weight.data.copy_(palettized(before, bits))
            of_bits[bits] = float(np.mean([psnr_db(one, other, np.abs(other).max())
                                           for one, other in zip(noise(), wanted, strict=True)]))
        weight.data.copy_(before)
        found[name] = of_bits
    return found


def palettized(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Returns a weight in fp16, by the nearest value of its best palette."""
    array = weight.numpy().astype(np.float16)
    table = palette(histogram(array), bits, array.dtype)
    return torch.from_numpy(table[indices(table, array)].astype(np.float32)).reshape(weight.shape)


def by_threshold(
    rated: Ratings, weights: Mapping[str, torch.nn.Parameter], budget: int,
) -> dict[str, int]:
    """Returns the bits by the highest threshold whose weights fit into so many bytes."""
    thresholds = sorted({psnr for of_bits in rated.values() for psnr in of_bits.values()})
    found = {}
    for threshold in thresholds:
        chosen = {name: next((bits for bits in _WIDTHS if of_bits[bits] > threshold), UNPACKED)
                  for name, of_bits in rated.items()}
        if _bytes(weights, chosen) <= budget:
            found = chosen
    return found


def _weights(unet: Original, names: Mapping[str, int]) -> dict[str, torch.nn.Parameter]:
    """Returns the parameters of these names."""
    parameters = dict(unet._network.named_parameters())
    return {name: parameters[NET + name] for name in names}


def _bytes(weights: Mapping[str, torch.nn.Parameter], bits: Mapping[str, int]) -> int:
    """Returns the bytes of indices and tables; those of fp16 where a weight stays as it is."""
    return sum(
        _HALF_BYTES * weight.numel() if bits[name] == UNPACKED
        else weight.numel() * bits[name] // 8 + _HALF_BYTES * 2 ** bits[name]
        for name, weight in weights.items())


if __name__ == "__main__":
    sys.exit(main())
