"""`reproduce`: a published variant, built again and compared."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from sdbuild.cli.options import as_command, json_option, print_json, variables
from sdbuild.recipe.fields import SETTING_FIELDS, VARIABLES, VARIANT_FIELD

_PLACES = ("source", "config", "vae", "refiner_source", "lora", "embedding", "controlnet",
           "bits", "calibrate")
"""Variables that map the files named by a card to local ones."""


@as_command()
@click.argument("place", metavar="hub:OWNER/NAME")
@variables("Bundle", VARIANT_FIELD, *SETTING_FIELDS, *(VARIABLES[name] for name in _PLACES))
@json_option
def command(place: str, words: dict[str, str], is_json: bool) -> int:
    """Build a published variant from its card, and compare every file.

    The exit status is 1 if anything differs; then the ingredients that differ are named.
    """
    from sdbuild.cli.publishing import reproduce

    places = {name: value for name, value in words.items() if name in _PLACES}
    with redirect_stdout(sys.stderr if is_json else sys.stdout):
        found = reproduce(place, words, places, click.echo)
    if is_json and found is not None:
        print_json(**found)
    return 0 if found is not None and found["is_same"] else 1
