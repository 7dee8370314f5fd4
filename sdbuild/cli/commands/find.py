"""`find`: artifacts by what they were made of."""

from __future__ import annotations

import argparse

from sdbuild.cli.commands import add_cache, add_json, opened, print_json

HELP = "find artifacts by ingredients, facts and cost: 'tool.coremltools<9' params.nbits=4"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the terms."""
    parser.add_argument("words", nargs="*", default=[], metavar="FIELD=VALUE",
                        help="with = != < <= > >=; all must hold (docs/store.md)")
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a line for each; 1 if there are none."""
    from sdbuild.base.units import counted
    from sdbuild.cli.format import as_json, made
    from sdbuild.reports.find import find

    store = opened(options)
    found = find(store.records(), options.words)
    if options.json:
        print_json(artifacts=[as_json(record, store) for record in found])
    else:
        for record in found:
            print(f"{record.made_at[:16]}  {record.step:<24}{made(record)}")
        print(counted(len(found), "artifact"))
    return 0 if found else 1
