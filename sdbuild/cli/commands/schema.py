"""`schema`: JSON Schemas of recipes, of `sdbuild.toml`, and of what commands print."""

from __future__ import annotations

import json

import click

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.cli.options import as_command


@as_command()
@click.argument("name", metavar="NAME")
def command(name: str) -> int:
    """Print a JSON Schema.

    NAME is recipe, catalogue, project (of sdbuild.toml), or a command, of whose --json it is.
    """
    from sdbuild.cli import output
    from sdbuild.recipe import json_schema

    known = {"recipe": json_schema.recipe, "catalogue": json_schema.catalogue,
             "project": json_schema.project}
    names = [*known, *output.outputs()]
    if name not in names:
        raise RecipeError(f"there is no schema {name!r}{did_you_mean(name, names)}",
                          hint=f"the schemas are: {', '.join(names)}")
    found = known[name]() if name in known else output.schema(name)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    return 0
