"""`du`: what the store takes of the disk."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from sdbuild.cli.commands import add_cache, add_json, opened, print_json

HELP = "what the store takes, by bundle, component and stage"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the store and `--json`."""
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints three tables, each of which makes up the whole, and totals."""
    from sdbuild.reports.du import told, usage

    found = usage(opened(options))
    if options.json:
        print_json(**asdict(found))
    else:
        print(told(found))
    return 0
