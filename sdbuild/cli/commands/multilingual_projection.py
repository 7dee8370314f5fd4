"""`multilingual-projection`: the flags of Apple's script that converts a projection."""

from __future__ import annotations

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import PROJECTION


@as_program(PROJECTION)
def command(flags: Given) -> int:
    """Refused: such a projection is TorchScript, which would have to be run."""
    raise RecipeError(f"--input-path {flags.input_path}: a multilingual projection is not "
                      "converted: it is TorchScript, which runs code as it is loaded",
                      hint="convert it with Apple's script on a Mac, and put its "
                           "MultilingualTextEncoderProjection.mlmodelc into the bundle's folder; "
                           "sdbuild contract checks it there")
