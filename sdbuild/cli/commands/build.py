"""`build`: makes the bundle, or single steps of it."""

from __future__ import annotations

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.building import build
from sdbuild.cli.options import as_command, jobs_option, json_option, recipe_variables
from sdbuild.cli.variants import for_each_variant


@as_command()
@for_each_variant
@click.argument("tasks", nargs=-1, metavar="[STEP]...")
@jobs_option
@recipe_variables()
@json_option
def command(tasks: tuple[str, ...], jobs: int | None, words: dict[str, str], is_json: bool) -> int:
    """Build the bundle, or single steps.

    STEP is a step such as convert:unet, a stage such as convert, or build, check, contract,
    generate or report; sdbuild list --all lists them. Steps that are up to date do not run.
    """
    for task in tasks if is_json else ():
        if task in ("check", "contract", "generate", "report"):
            raise RecipeError(f"build {task} --json: it prints JSON of its own",
                              hint=f"sdbuild {task} --json")
    return build(words, tasks or ("build",), jobs, is_json=is_json)
