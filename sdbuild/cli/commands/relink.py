"""`relink`: another build's component in a finished bundle."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from sdbuild.cli.commands import add_json, add_variables, print_json, variables

HELP = "replace one component of a finished bundle by another build's, and nothing else"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the bundle, the component, and the variables of the other build."""
    parser.add_argument("bundle", type=Path, help="the folder of a finished bundle")
    parser.add_argument("component", help="such as unet")
    add_variables(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints what came into the bundle, and warnings."""
    from sdbuild.cli.format import as_json, made
    from sdbuild.engine.build import Builder
    from sdbuild.engine.relink import relink
    from sdbuild.recipe.settings import settings

    builder = Builder.of(settings(variables(options.words)))
    with redirect_stdout(sys.stderr if options.json else sys.stdout):  # what is made or fetched
        record = relink(options.bundle.resolve(), options.component, builder)
    if options.json:
        print_json(bundle=str(options.bundle), warnings=list(record.facts["warnings"]),
                   artifact=as_json(record, builder.store))
        return 0
    for warning in record.facts["warnings"]:
        print(warning)
    print(f"{options.bundle}: {record.step}  {made(record)}")
    return 0
