"""`history`: what was made, when, and what had changed each time."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sdbuild.cli.commands import add_cache, add_json, opened, print_json

if TYPE_CHECKING:
    from sdbuild.store import Record

HELP = "what was made, when, and what had changed each time"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the step."""
    parser.add_argument("step", nargs="?", default="*", metavar="STEP",
                        help="such as convert:unet, a stage or a component; all if it is left out")
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints each artifact, the oldest first, and how it differs from the one before it."""
    from sdbuild.base.errors import RecipeError
    from sdbuild.base.suggestions import did_you_mean
    from sdbuild.cli.format import as_json, made
    from sdbuild.reports.causes import causes
    from sdbuild.reports.lineage import Lineage

    store = opened(options)
    lineage = Lineage(store.records())
    known = {name for r in lineage.records.values() for name in _names(r)}
    if options.step != "*" and options.step not in known:
        raise RecipeError(f"{options.step} was never made here{did_you_mean(options.step, known)}")
    before: dict[str, Record] = {}
    told = []
    for record in lineage.records.values():
        if options.step == "*" or options.step in _names(record):
            old = before.get(record.step)
            changed = causes(old, record.ingredients, lineage, None) if old else []
            told.append((record, changed))
        before[record.step] = record
    if options.json:
        print_json(artifacts=[as_json(r, store) | {"changed": c} for r, c in told])
        return 0
    for record, changed in told:
        gone = "" if store.has_content(record) else "  (content gone)"
        print(f"{record.made_at[:16]}  {record.step:<24}{made(record)}{gone}")
        for cause in changed:
            print(f"{'':18}{cause}")
    return 0


def _names(record: Record) -> tuple[str, ...]:
    """What a record's step is called by."""
    from sdbuild.reports.lineage import component, stage

    return record.step, stage(record), component(record)
