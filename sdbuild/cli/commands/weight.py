"""`weight`: follows one weight from its checkpoint to the bytes in the bundle."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict

import click

from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables, with_model


@as_command()
@click.argument("recipe")
@click.argument("component")
@click.argument("tensor")
@recipe_variables()
@json_option
def command(recipe: str, component: str, tensor: str, words: dict[str, str], is_json: bool) -> int:
    """Follow one weight from the checkpoint to the bundle.

    TENSOR is its name in the checkpoint, such as conv_in.weight, and COMPONENT such as unet.
    """
    from sdbuild.engine.build import Builder
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.weight import component_of, follow, format_stops

    found = settings(with_model(words, recipe))
    chosen = component_of(found.recipe, component)
    with redirect_stdout(sys.stderr if is_json else sys.stdout):  # progress of downloads
        stops = follow(Builder.of(found), chosen, tensor)
    if is_json:
        print_json(component=chosen.name, tensor=tensor,
                   stops=[asdict(stop) for stop in stops])
    else:
        click.echo(format_stops(stops))
    return 0
