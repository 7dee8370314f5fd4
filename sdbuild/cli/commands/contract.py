"""`contract`: a bundle, of any maker, held against what hosts expect."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from sdbuild.cli.commands import add_json, print_json

HELP = "what hosts would trip over in a bundle"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the bundle."""
    parser.add_argument("bundle", type=Path, help="the folder of a bundle, of any maker")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints every broken rule; 1 if one of them is an error."""
    from sdbuild.bundle.contract import RULES, told, violations
    from sdbuild.bundle.rules.rule import ERROR

    found = violations(options.bundle)
    errors = sum(violation.level == ERROR for violation in found)
    if options.json:
        print_json(rules=len(RULES), violations=[asdict(violation) for violation in found])
    else:
        counts = f"{len(RULES)} rules: {errors} errors, {len(found) - errors} warnings"
        print(told(found), counts, sep="\n" if found else "")
    return 1 if errors else 0
