"""`refresh`: resolves the branches of a recipe's sources again."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables


@as_command()
@recipe_variables()
@json_option
def command(words: dict[str, str], is_json: bool) -> int:
    """Resolve the branches of the recipe's sources again.

    A branch on the Hub stays at the commit that it was first seen at, until this asks the Hub.
    """
    from sdbuild.engine.sources import Checkpoints
    from sdbuild.recipe.settings import settings
    from sdbuild.store import Store

    found = settings(words)
    moves = Checkpoints(Store(found.cache)).refresh(found.recipe.sources.checkpoints)
    if is_json:
        print_json(moves=[{"place": place, "before": before, "after": after}
                          for place, before, after in moves],
                   is_locked=found.recipe.sources.lock is not None)
        return 0
    for place, before, after in moves:
        was = "" if before == after else f"{before[:12] or 'not resolved before'} → "
        click.echo(f"{place}  {was}{after[:12]}")
    if not moves:
        click.echo("nothing to resolve: no source of this recipe is a branch of a repository")
    elif found.recipe.sources.lock is not None:
        click.echo("the recipe is locked, so builds stay as they are until: sdbuild lock RECIPE")
    return 0
