"""`mixed-bit-compression-apply`: the flags of Apple's script that mixes bits."""

from __future__ import annotations

import click

from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import APPLY


@as_program(APPLY)
def command(flags: Given) -> int:
    """Give weights of a package the bits of an analysis."""
    from sdbuild.cli.apple.mixed import mix

    return mix(flags, click.echo)
