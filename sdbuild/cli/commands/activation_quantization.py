"""`activation-quantization`: the flags of Apple's script that quantizes activations."""

from __future__ import annotations

import shlex

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.names import place_of
from sdbuild.cli.apple.programs import ACTIVATIONS


@as_program(ACTIVATIONS)
def command(flags: Given) -> int:
    """Refused: sdbuild build activations=8 does its three parts in one."""
    source = shlex.quote(place_of(flags.model_version, "--model-version"))
    raise RecipeError("its parts are steps of a build here, and its files of observed inputs and "
                      "of images' PSNR are not written",
                      hint=f"sdbuild build source={source} activations=8 quant=none target=iOS17 "
                           "attention=split_einsum observes, chooses layers and quantizes them; "
                           "sdbuild export quantize:unet lays out the package")
