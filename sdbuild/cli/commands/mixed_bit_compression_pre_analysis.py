"""`mixed-bit-compression-pre-analysis`: the flags of Apple's script that analyses layers."""

from __future__ import annotations

import shlex

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.names import place_of
from sdbuild.cli.apple.programs import PRE_ANALYSIS


@as_program(PRE_ANALYSIS)
def command(flags: Given) -> int:
    """Refused: sdbuild sweep tries bits that it finds itself."""
    source = shlex.quote(place_of(flags.model_version, "--model-version"))
    raise RecipeError("the analysis of each layer is not made; calibration takes its place, and "
                      "finds bits for each weight in one pass",
                      hint=f"sdbuild sweep source={source} builds several bits and says which are "
                           f"enough; sdbuild build quant=4.0 source={source} builds one; an "
                           "analysis that there is: sdbuild build bits=FILE:NAME")
