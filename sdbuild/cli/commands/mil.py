"""`mil …`: commands for single models. They are `mil`'s own, in `sdbuild/mil/cli/main.py`."""

from __future__ import annotations

import argparse

from sdbuild.mil.cli.main import add_mil

HELP = "ML Programs: look into, verify, compare, run, edit"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the commands below `mil`."""
    add_mil(parser)
