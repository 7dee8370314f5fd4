"""`weight`: the way of one weight, from its checkpoint to the bytes in the bundle."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import asdict

from sdbuild.cli.commands import add_json, add_variables, print_json, variables

HELP = "where one weight of a checkpoint went, from step to step, to its bytes in the bundle"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe, the component, the tensor and the variables."""
    parser.add_argument("recipe", help="a recipe's name, or its file")
    parser.add_argument("component", help="such as unet")
    parser.add_argument("tensor", help="its name in the checkpoint, such as conv_in.weight")
    add_variables(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints what each step made of the weight."""
    from sdbuild.engine.build import Builder
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.weight import component_of, follow, told

    found = settings(variables(options.words, options.recipe))
    component = component_of(found.recipe, options.component)
    with redirect_stdout(sys.stderr if options.json else sys.stdout):  # what is fetched
        stops = follow(Builder.of(found), component, options.tensor)
    if options.json:
        print_json(component=component.name, tensor=options.tensor,
                   stops=[asdict(stop) for stop in stops])
    else:
        print(told(stops))
    return 0
