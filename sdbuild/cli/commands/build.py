"""`build`: makes the bundle, or single steps of it."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command, recipe_variables


@as_command()
@click.argument("tasks", nargs=-1, metavar="[STEP]...")
@click.option("-n", "--jobs", type=click.IntRange(min=1), default=1, metavar="N",
              help="Steps to run at a time.")
@recipe_variables()
def command(tasks: tuple[str, ...], jobs: int, words: dict[str, str]) -> int:
    """Build the bundle, or single steps.

    STEP is a step such as convert:unet, a stage such as convert, or build, check, contract or
    generate; sdbuild list --all lists them. Steps that are up to date do not run.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.reporter import Reporter

    return run(words, tasks or ("build",), jobs, Reporter()).status
