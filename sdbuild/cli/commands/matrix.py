"""`matrix`: the variants of a matrix or a catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.base.printable import printable
from sdbuild.cli.options import as_command, recipe_variables
from sdbuild.cli.variants import (
    found_variants,
    impossible,
    matrix_option,
    only_option,
    own_words,
)

if TYPE_CHECKING:
    from sdbuild.recipe.catalogue import Variant

_MOST_JOBS = 256
"""GitHub's limit on jobs per matrix."""


@as_command()
@only_option
@matrix_option
@recipe_variables()
@click.option("--json", "is_json", is_flag=True,
              help="Print one line for GitHub's fromJSON (docs/catalogues.md).")
def command(
    matrix: tuple[str, ...], only: tuple[str, ...], words: dict[str, str], is_json: bool
) -> int:
    """List the variants of a matrix or a catalogue; nothing runs.

    Without --matrix it is the project's catalogue.toml, or the recipe's own [matrix].
    """
    found = found_variants(words, matrix or ("",), only)
    for variant, error in impossible(found, ("build",)):
        click.echo(f"warning: {variant.name}: {error.message}", err=True)
    if not is_json:
        return _list(found)
    if len(found) > _MOST_JOBS:
        raise RecipeError(f"matrix --json: {len(found):,} variants, and GitHub takes {_MOST_JOBS}",
                          hint="--only PATTERN takes some of them; or build several in a job")
    rows = [own_words(variant) for variant in found]
    click.echo(json.dumps({"include": [
        row | {"name": variant.name, "words": _on_a_line(row)}
        for variant, row in zip(found, rows, strict=True)]}))
    return 0


def _on_a_line(words: Mapping[str, str]) -> str:
    """Returns variables as a shell, or xargs, reads them from a line.

    Raises:
        RecipeError: no line holds a value.
    """
    from sdbuild.recipe.catalogue import shell_words

    for name, value in words.items():
        if "\n" in value or printable(value) != value:
            raise RecipeError(f"matrix: {name} is {shown(value)}: a line of words has no line "
                              "breaks and control characters",
                              hint="write a space in their place; build --matrix takes the value "
                                   "as it is")
    return shell_words(words)


def _list(found: Sequence[Variant]) -> int:
    """Prints the variants, then the errors of unreadable ones; returns the exit status."""
    for variant in found:
        if variant.error is None:
            click.echo(f"{variant.name}\n    {_on_a_line(own_words(variant))}")
    failed = [(variant.name, variant.error) for variant in found if variant.error is not None]
    for name, error in failed:
        click.echo(f"ERROR: {name}: {error}", err=True)
    if not failed:
        return 0
    return 2 if isinstance(failed[0][1], RecipeError) else 1
