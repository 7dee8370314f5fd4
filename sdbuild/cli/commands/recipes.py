"""`recipes`: the recipes that are found by name."""

from __future__ import annotations

from typing import Any

import click

from sdbuild.cli.options import as_command, json_option, print_json


@as_command()
@json_option
def command(is_json: bool) -> int:
    """List the recipes: the project's own, and the built-in ones."""
    from sdbuild.base.errors import RecipeError
    from sdbuild.base.paths import real_path
    from sdbuild.families.nouns import size_text
    from sdbuild.recipe.project import BUILT_IN, Project
    from sdbuild.recipe.recipe import load

    project = Project.here()
    found: list[dict[str, Any]] = []
    for name in project.names():
        try:
            recipe = load({"model": name}, project)
        except RecipeError as error:  # list the others
            click.echo(f"warning: {error.message}", err=True)
            continue
        found.append({
            "name": name, "summary": recipe.summary, "family": recipe.family.name,
            "size": ",".join(map(size_text, recipe.network.all_sizes)),
            "source": list(recipe.sources.checkpoint.places),
            "file": str(project.recipe(name)), "is_built_in": not (
                path := project.recipe(name)) or real_path(path.parent) == real_path(BUILT_IN),
        })
    if is_json:
        print_json(recipes=found)
        return 0
    for row in found:
        own = "" if row["is_built_in"] else f"  ({row['file']})"
        click.echo(f"{row['name']}  {row['family']}  {row['size']}{own}")
        click.echo(f"    {row['summary']}\n    from {', '.join(row['source'])}")
    return 0
