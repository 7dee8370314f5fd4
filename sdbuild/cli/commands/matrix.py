"""`matrix`: the variants of a matrix or a catalogue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.options import as_command, recipe_variables
from sdbuild.cli.variants import found_variants, matrix_option, only_option

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
    if not is_json:
        return _list(found)
    if len(found) > _MOST_JOBS:
        raise RecipeError(f"matrix --json: {len(found):,} variants, and GitHub takes {_MOST_JOBS}",
                          hint="--only PATTERN takes some of them; or build several in a job")
    click.echo(json.dumps({"include": [
        variant.row | {"name": variant.name, "words": variant.shell_words} for variant in found]}))
    return 0


def _list(found: Sequence[Variant]) -> int:
    """Prints the variants, then the errors of unreadable ones; returns the exit status."""
    for variant in found:
        if variant.error is None:
            click.echo(f"{variant.name}\n    {variant.shell_words}")
    failed = [(variant.name, variant.error) for variant in found if variant.error is not None]
    for name, error in failed:
        click.echo(f"ERROR: {name}: {error}", err=True)
    if not failed:
        return 0
    return 2 if isinstance(failed[0][1], RecipeError) else 1
