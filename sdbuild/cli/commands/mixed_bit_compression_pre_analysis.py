"""`mixed-bit-compression-pre-analysis`: the flags of Apple's script; mixtures are not made yet."""

from __future__ import annotations

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import PRE_ANALYSIS


@as_program(PRE_ANALYSIS)
def command(flags: Given) -> int:
    """Refused for now: every weight has the same bits."""
    raise RecipeError("mixtures of bits by layer are not made for a whole model yet",
                      hint="quant=6 gives all weights 6 bits; sdbuild mil palettize --mixed gives "
                           "weights of a package bits of their own, by name")
