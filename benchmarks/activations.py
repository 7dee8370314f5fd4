"""Measures quantized activations: what 8-bit inputs of layers lose beside 8-bit weights alone.

    python -m benchmarks.activations [--prompts N] [--images] [SNR_DB …]

Builds the built-in U-Net in fp16, with integer weights, and with the inputs of layers as integers,
too: of so many layers that the guided noise is expected to keep a signal-to-noise ratio of SNR_DB.
They are measured as `benchmarks.quality_per_byte` does: by the guided noise at moments of images
that were not observed, or with `--images` by the whole images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.quality_per_byte import Measured, builder, of_images, of_noise, reference
from sdbuild.base.filenames import contents
from sdbuild.mil.compress.activations import chosen, read_layer_inputs
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.files.package import WEIGHT_FILE, read_package
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.runtime.predictor import load
from sdbuild.steps.observe import RANGES

_WORDS = {"quant": "none", "activations": "8", "target": "iOS17"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, runs and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.activations")
    parser.add_argument("snr_db", nargs="*", type=float, default=[0, 20, 25, 28, 30, 32, 35])
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    parser.add_argument("--images", action="store_true", help="whole images, not the noise")
    options = parser.parse_args(arguments)
    made = builder(_WORDS)
    with TemporaryDirectory() as folder:
        wanted = reference({}, Path(folder), options.prompts)
        measure = of_images(wanted) if options.images else of_noise(wanted)
        for step in ("convert:unet", "observe:unet"):
            made.store.checkout(made.make_all(step), Path(folder, step), "")
        (fp16,) = contents(Path(folder, "convert:unet"), PACKAGE)
        found = read_layer_inputs(Path(folder, "observe:unet", RANGES))
        print("| U-Net | layers | work | bytes | PSNR |\n| --- | ---: | ---: | ---: | ---: |")
        for name, least in [("fp16", None), ("W8A16", None),
                            *((f"W8A8, {db:g} dB", db) for db in options.snr_db)]:
            rounded = [] if least is None else chosen(found, least)
            work = sum(item.work for item in rounded) / sum(item.work for item in found)
            package = fp16
            if name != "fp16":
                package = Path(folder, f"{name}.mlpackage")
                quantize(fp16, package, activations={item.layer: item.largest for item in rounded})
            shown = Measured(psnr_db=measure(load([package], "portable", "original")),
                             size=read_package(package).weight_path(WEIGHT_FILE).stat().st_size)
            psnr, size = str(shown).split(" | ")
            print(f"| {name} | {len(rounded)} of {len(found)} | {work:.0%} | {size} | {psnr} |",
                  flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
