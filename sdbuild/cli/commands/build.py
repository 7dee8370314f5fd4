"""`build`: makes the bundle, or single steps of it."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.options import as_command, json_option, open_store, print_json, recipe_variables
from sdbuild.cli.variants import for_each_variant


@as_command()
@for_each_variant
@click.argument("tasks", nargs=-1, metavar="[STEP]...")
@click.option("-n", "--jobs", type=click.IntRange(min=1), default=1, metavar="N",
              help="Steps to run at a time.")
@recipe_variables()
@json_option
def command(tasks: tuple[str, ...], jobs: int, words: dict[str, str], is_json: bool) -> int:
    """Build the bundle, or single steps.

    STEP is a step such as convert:unet, a stage such as convert, or build, check, contract,
    generate or report; sdbuild list --all lists them. Steps that are up to date do not run.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.format import build_as_json
    from sdbuild.cli.reporter import Reporter

    if not is_json:
        return run(words, tasks or ("build",), jobs, Reporter()).status
    for task in tasks:
        if task in ("check", "contract", "generate", "report"):
            raise RecipeError(f"build {task} --json: it prints JSON of its own",
                              hint=f"sdbuild {task} --json")
    with redirect_stdout(sys.stderr):
        found = run(words, tasks or ("build",), jobs, Reporter(sys.stderr))
    print_json(**build_as_json(found, open_store(words)))
    return found.status
