"""`why`: what a task would run, and because of what."""

from __future__ import annotations

import argparse

from sdbuild.commands import add_variables, variables

HELP = "what a task would run, and because of what"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the task and the variables."""
    parser.add_argument("task", help="build, or a step such as palettize:unet")
    add_variables(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a line for each step that the task needs."""
    from sdbuild.why import why

    print(why(options.task, variables(options.variables)))
    return 0
