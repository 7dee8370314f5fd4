"""`refresh`: resolves the branches of a recipe's sources again."""

from __future__ import annotations

import click

from sdbuild.cli.options import command, recipe_variables


@command()
@recipe_variables()
def command(words: dict[str, str]) -> int:
    """Resolve the branches of the recipe's sources again.

    A branch on the Hub stays at the commit that it was first seen at, until this asks the Hub.
    """
    from sdbuild.engine.sources import Checkpoints
    from sdbuild.recipe.settings import settings
    from sdbuild.store import Store

    found = settings(words)
    moves = Checkpoints(Store(found.cache)).refresh(found.recipe.sources)
    for place, before, after in moves:
        was = "" if before == after else f"{before[:12] or 'not asked before'} → "
        click.echo(f"{place}  {was}{after[:12]}")
    if not moves:
        click.echo("nothing to ask: no place of this recipe is a branch of a repository")
    elif found.recipe.lock is not None:
        click.echo("the recipe is locked, so this changes nothing before: "
              "python -m sdbuild lock RECIPE")
    return 0
