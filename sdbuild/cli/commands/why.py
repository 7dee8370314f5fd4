"""`why`: what a task would run, and because of what."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from sdbuild.cli.commands import add_json, add_variables, print_json, variables

HELP = "what a task would run, because of what, and what it will cost"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the task and the variables."""
    parser.add_argument("task", help="build, or a step such as palettize:unet")
    add_variables(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a line for each step that the task needs."""
    from sdbuild.reports.why import standings, told, why

    words = variables(options.words)
    reasons, places = why(options.task, words), standings(words)
    if options.json:
        print_json(steps=[asdict(reason) for reason in reasons],
                   places=[asdict(place) for place in places])
    else:
        print(told(reasons), *places, sep="\n")
    return 0
