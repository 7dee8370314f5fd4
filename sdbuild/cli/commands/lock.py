"""`lock`: writes into a recipe what its checkpoint is."""

from __future__ import annotations

import argparse
from dataclasses import replace

from sdbuild.base.errors import RecipeError
from sdbuild.cli.commands import add_variables, variables

HELP = "write into a recipe what its checkpoint is, so that no other is taken for it"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe and the variables."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or its file")
    parser.add_argument("--write", action="store_true",
                        help="write into a built-in recipe too, instead of printing the lock")
    add_variables(parser)


def run(options: argparse.Namespace) -> int:
    """Downloads every part and writes the digests of what came, or prints them."""
    from sdbuild.base.digest import sha256_file
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import plan
    from sdbuild.recipe import lockfile, recipe
    from sdbuild.recipe.settings import settings
    from sdbuild.store import Store

    words = variables(options.words, options.recipe)
    for name in recipe.OF_CHECKPOINT:
        if name in words:
            raise RecipeError(f"lock {name}=…: a lock is of the recipe's own {name}",
                              hint="write it into the recipe")
    found = settings(words)
    store = Store(found.cache)
    builder = Builder(plan(replace(found.recipe, lock=None)), store, found.ram_bytes)
    names = [step.name for step in builder.plan.steps.values() if step.kind == "download"]
    builder.reach_sources(names)
    records = {name: builder.make_all(name) for name in names}
    made = lockfile.Lock(
        parts={name.partition(":")[2]: {entry.path: sha256_file(builder.file(record, entry.path))
                                        for entry in record.tree}
               for name, record in records.items()},
        commits=builder.checkpoints.commits(found.recipe.sources),
    )
    path = recipe.find(options.recipe)
    if path.parent == recipe.RECIPES and not options.write:
        print(lockfile.text(made), end="")
        return 0
    lockfile.write(path, made)
    locked = Builder(plan(replace(found.recipe, lock=made)), store, found.ram_bytes)
    for name, record in records.items():
        locked.adopt(name, record)
    at = "".join(f", {place} at {commit[:12]}" for place, commit in made.commits.items())
    print(f"{path.name}: {len(made.parts)} parts locked{at}")
    return 0
