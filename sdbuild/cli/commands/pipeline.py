"""`pipeline`: the command line of Apple's Python pipeline."""

from __future__ import annotations

import os

import click

from sdbuild.cli.apple.command import as_program
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.programs import PIPELINE


@as_program(PIPELINE)
def command(flags: Given) -> int:
    """Generate an image as python_coreml_stable_diffusion.pipeline does."""
    from sdbuild.base.machine import PATIENT

    os.environ.update(PATIENT)  # before torch starts its threads
    from sdbuild.cli.apple.draw import draw

    return draw(flags, click.echo)
