"""The tables of a recipe's file: read, and their fields taken out by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import read_file, shown, toml_table
from sdbuild.base.suggestions import did_you_mean
from sdbuild.recipe.fields import REQUIRED, Field, parse


def read(path: Path) -> dict[str, Any]:
    """Returns the content of a recipe.

    Raises:
        RecipeError: it cannot be read, or is not TOML.
    """
    return toml_table(read_file(path, RecipeError), str(path), RecipeError)


def table_in(table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Returns the table called `name` in a recipe; empty if there is none.

    Raises:
        RecipeError: it is no table.
    """
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: {name} is {shown(found)}, expected a table [{name}]")
    return found


def check_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    """Makes sure that a table has no unknown fields.

    Raises:
        RecipeError: names the first.
    """
    for key in table:
        if key not in known:
            raise RecipeError(
                f"{where}: unknown field {key!r}{did_you_mean(key, known)}",
                hint=f"the fields are: {', '.join(sorted(known))}",
            )


def values_of(
    fields: tuple[Field, ...], table: Mapping[str, Any], words: Mapping[str, str], where: str
) -> dict[str, Any]:
    """Returns the value of each field: from the command line, else the recipe, else the default.

    Raises:
        RecipeError: one is missing, or not allowed; says where.
    """
    values = {}
    for field in fields:
        found = table.get(field.name, field.default)
        if field.name in words:
            values[field.name] = parse(field, words[field.name], "on the command line")
        elif found is REQUIRED:
            raise RecipeError(f"{where}: no {field.name}", hint=f"it is {field.meaning}")
        else:
            values[field.name] = None if found is None else parse(field, found, where)
    return values
