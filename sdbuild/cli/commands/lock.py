"""`lock`: pins the checkpoint of a recipe by digest."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables, with_model


@as_command()
@click.argument("recipe")
@click.option("--write", "is_written", is_flag=True,
              help="Write into a built-in recipe too, instead of printing the lock.")
@recipe_variables()
@json_option
def command(recipe: str, is_written: bool, words: dict[str, str], is_json: bool) -> int:
    """Pin a recipe's checkpoint by digest.

    RECIPE is a recipe's name, or its file. Downloads every part of the checkpoint and writes the
    digests into the file, so that a build accepts no other.
    """
    from sdbuild.base.digest import sha256_file
    from sdbuild.base.paths import real_path
    from sdbuild.base.units import counted
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import plan
    from sdbuild.recipe import lockfile
    from sdbuild.recipe.fields import OF_CHECKPOINT
    from sdbuild.recipe.project import BUILT_IN, Project
    from sdbuild.recipe.settings import settings
    from sdbuild.store import Store

    words = with_model(words, recipe)
    for name in OF_CHECKPOINT:
        if name in words:
            raise RecipeError(f"lock {name}=…: a lock is of the recipe's own {name}",
                              hint="write it into the recipe")
    found = settings(words)
    store = Store(found.cache)
    builder = Builder(plan(found.recipe.with_lock(None)), store, found.ram_bytes)
    names = [step.name for step in builder.plan.steps.values() if step.kind == "download"]
    builder.reach_sources(names)
    with redirect_stdout(sys.stderr if is_json else sys.stdout):  # progress of downloads
        records = {name: builder.make_all(name) for name in names}
    made = lockfile.Lock(
        parts={name.partition(":")[2]: {entry.path: sha256_file(builder.file(record, entry.path))
                                        for entry in record.tree}
               for name, record in records.items()},
        commits=builder.checkpoints.commits(found.recipe.sources.checkpoints),
    )
    path = Project.here().find(recipe)
    is_written = is_written or real_path(path.parent) != real_path(BUILT_IN)
    if is_written:
        lockfile.write(path, made)
        locked = Builder(plan(found.recipe.with_lock(made)), store, found.ram_bytes)
        for name, record in records.items():
            locked.adopt(name, record)
    if is_json:
        print_json(recipe=str(path), is_written=is_written, **asdict(made))
        return 0
    if not is_written:
        click.echo(lockfile.text(made), nl=False)
        return 0
    at = "".join(f", {place} at {commit[:12]}" for place, commit in made.commits.items())
    before = found.recipe.sources.lock
    changes = "" if before is None else f", {', '.join(made.changes(before)) or 'nothing changed'}"
    click.echo(f"{path.name}: {counted(len(made.parts), 'part')} locked{at}{changes}")
    return 0
