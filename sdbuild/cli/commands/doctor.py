"""`doctor`: what this machine can build and run."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from sdbuild.cli.commands import add_cache, add_json, print_json

HELP = "what this machine can build and run"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the store and `--json`."""
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints what was found; 1 if nothing can be built."""
    from sdbuild.cli.doctor import can_build, examine, told
    from sdbuild.recipe.settings import PROJECT

    found = examine(options.cache or PROJECT / "cache")
    if options.json:
        print_json(findings=[asdict(finding) for finding in found])
    else:
        print(told(found))
    return 0 if can_build(found) else 1
