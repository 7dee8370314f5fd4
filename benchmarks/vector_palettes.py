"""Do palettes of pairs of weights keep more than palettes of single weights?

    python -m benchmarks.vector_palettes [--prompts N] [BITS …]

coremltools' k-means for PyTorch (`PostTrainingPalettizer`) gives each layer of the built-in U-Net a
table of 2**BITS weights, or of 4**BITS pairs of weights (`cluster_dim=2`, of which iOS 18 has
programs): BITS (2, 3 and 4) for each weight either way. Printed is the PSNR of the guided noise, as
`quality_per_byte` measures it, and the bytes of indices and tables.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from coremltools.optimize.torch.palettization import (
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
)
from diffusers import UNet2DConditionModel

from benchmarks.quality_per_byte import of_noise, reference
from sdbuild.recipe.project import BUILT_IN

_MODEL = BUILT_IN / "tiny-emoji"
_TABLE = "_COREML_/weight/lut"
_HALF = 2
"""The bytes of a number in a table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Palettizes, runs and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vector_palettes")
    parser.add_argument("bits", nargs="*", type=int, default=[2, 3, 4])
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        measure = of_noise(reference({}, folder / "original", options.prompts))
        print("| bits for each weight | tables of | PSNR | bytes |\n| ---: | --- | ---: | ---: |")
        for bits in options.bits:
            for side, of in ((1, "weights"), (2, "pairs")):
                place = folder / f"{bits}-{side}"
                size = write_palettized(place, bits, side)
                unet = reference({"source": str(place)}, folder / f"{bits}-{of}", 1).load("unet")
                found = measure(unet)
                print(f"| {bits} | {of} | {np.mean(found):.1f} ± {np.std(found):.1f} dB "
                      f"(worst {min(found):.1f}) | {size:,} |", flush=True)
    return 0


def write_palettized(folder: Path, bits: int, side: int) -> int:
    """Writes the built-in checkpoint with tables of `side` weights an entry, `bits` for each
    weight; returns the bytes of tables and indices."""
    shutil.copytree(_MODEL, folder)
    unet = UNet2DConditionModel.from_pretrained(_MODEL / "unet", torch_dtype=torch.float32)
    config = PostTrainingPalettizerConfig.from_dict({"global_config": {
        "n_bits": bits * side, "cluster_dim": side, "granularity": "per_tensor"}})
    state = PostTrainingPalettizer(unet, config).compress().state_dict()
    tables = {name: table for name, table in state.items() if name.endswith(_TABLE)}
    weights = [state[name.replace(_TABLE, "weight")] for name in tables]
    made = UNet2DConditionModel.from_pretrained(_MODEL / "unet", torch_dtype=torch.float32)
    made.load_state_dict({name: state[name] for name in made.state_dict()})
    made.half().save_pretrained(folder / "unet")
    return (sum(table.numel() * _HALF for table in tables.values())
            + sum(-(-weight.numel() * bits // 8) for weight in weights))


if __name__ == "__main__":
    sys.exit(main())
