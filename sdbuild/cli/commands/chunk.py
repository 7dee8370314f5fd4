"""`chunk`: the command line of Apple's script that cuts a package in two."""

from __future__ import annotations

import click

from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import CHUNK


@as_program(CHUNK)
def command(flags: Given) -> int:
    """Cut a package in two, as chunk_mlprogram does."""
    from sdbuild.cli.apple.cut import cut

    return cut(flags, click.echo)
