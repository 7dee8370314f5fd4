"""`refresh`: asks anew what the branches of a recipe's places are at."""

from __future__ import annotations

import argparse

from sdbuild.cli.commands import add_variables, variables

HELP = "ask the Hub anew what the branches are at that a recipe's checkpoint comes from"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the variables."""
    add_variables(parser)


def run(options: argparse.Namespace) -> int:
    """Prints for each place what it was at and what it is at now."""
    from sdbuild.engine.sources import Checkpoints
    from sdbuild.recipe.settings import settings
    from sdbuild.store import Store

    found = settings(variables(options.words))
    moves = Checkpoints(Store(found.cache)).refresh(found.recipe.sources)
    for place, before, after in moves:
        was = "" if before == after else f"{before[:12] or 'not asked before'} → "
        print(f"{place}  {was}{after[:12]}")
    if not moves:
        print("nothing to ask: no place of this recipe is a branch of a repository")
    elif found.recipe.lock is not None:
        print("the recipe is locked, so this changes nothing before: "
              "python -m sdbuild lock RECIPE")
    return 0
