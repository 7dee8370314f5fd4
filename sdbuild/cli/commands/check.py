"""`check`: the parity of each component with its PyTorch original."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command, recipe_variables


@as_command()
@click.option("-n", "--jobs", type=click.IntRange(min=1), default=1, metavar="N",
              help="Steps to run at a time.")
@recipe_variables()
def command(jobs: int, words: dict[str, str]) -> int:
    """Compare each component with its PyTorch original.

    Builds what is needed; fails if a component's PSNR is below the recipe's floor.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.reporter import Reporter

    return run(words, ("check",), jobs, Reporter()).status
