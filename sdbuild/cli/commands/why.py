"""`why`: what a task would run, and because of what."""

from __future__ import annotations

from dataclasses import asdict

import click

from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables
from sdbuild.cli.variants import for_each_variant


@as_command()
@for_each_variant
@click.argument("task", default="build", metavar="[STEP]")
@recipe_variables()
@json_option
def command(task: str, words: dict[str, str], is_json: bool) -> int:
    """Explain what would run, why, and what it costs.

    STEP is build or a step such as palettize:unet (default: build). Nothing runs.
    """
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.why import format_reasons, standings, why

    reasons, places = why(task, words), standings(words)
    recipe = settings(words).recipe
    found = recipe.found
    click.get_current_context().meta[recipe.variant] = reasons  # for the total of a matrix
    if is_json:
        print_json(steps=[asdict(reason) for reason in reasons],
                   places=[asdict(place) for place in places], recipe=found)
    else:
        taken = [f"{'recipe':<23} {found}"] if found else []
        click.echo("\n".join([format_reasons(reasons), *map(str, places), *taken]))
    return 0
