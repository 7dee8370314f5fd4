"""`torch2coreml`: the command line of Apple's converter."""

from __future__ import annotations

import click

from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import TORCH2COREML


@as_program(TORCH2COREML)
def command(flags: Given) -> int:
    """Convert as python_coreml_stable_diffusion.torch2coreml does."""
    from sdbuild.cli.apple.convert import convert

    return convert(flags, click.echo)
