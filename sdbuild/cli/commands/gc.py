"""`gc`: makes room in the store. Only tells what would go, unless `--yes`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from sdbuild.base.units import parse_bytes, parse_seconds
from sdbuild.cli.commands import add_cache, add_json, opened, print_json

if TYPE_CHECKING:
    from sdbuild.reports.gc import Garbage
    from sdbuild.store import Store

HELP = "make room: remove content that no bundle in place was made from"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what is kept, the limits, and `--yes`."""
    parser.add_argument("--keep", nargs="+", action="extend", default=[], metavar="RECIPE",
                        help="recipes whose bundles stay, and what they were made from")
    parser.add_argument("--max-size", metavar="SIZE",
                        help="only as much as leaves the store this size (20G): first what was "
                        "used longest ago, last what bundles in place were made from")
    parser.add_argument("--older-than", metavar="TIME",
                        help="only what was not used for that long (30d)")
    parser.add_argument("--yes", action="store_true", help="do it, and not only tell")
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints what goes, for what it was, and what stays."""
    from sdbuild.reports.gc import collect, garbage

    store = opened(options)
    found = (collect if options.yes else garbage)(
        store, _kept(options.keep, store),
        max_bytes=parse_bytes(options.max_size, "--max-size") if options.max_size else None,
        before=time.time() - parse_seconds(options.older_than, "--older-than")
        if options.older_than else None,
    )
    if options.json:
        content = asdict(found)
        print_json(is_done=options.yes, files=len(content.pop("files")), **content)
    else:
        print(_told(found, options.yes))
    return 0


def _kept(names: Iterable[str], store: Store) -> list[str]:
    """The keys of every variant of some recipes: their bundles, or what there is of them.

    Raises:
        RecipeError: a recipe that neither is one of ours nor has a bundle in the store.
    """
    from sdbuild.base.errors import RecipeError, SDBuildError
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import plan
    from sdbuild.recipe.recipe import load
    from sdbuild.reports.lineage import Lineage

    bundles = list(Lineage(store.records()).bundles())
    kept = []
    for name in names:
        found = [b.key for b in bundles if b.ingredients["params"].get("name") == name]
        try:
            states = Builder(plan(load({"model": name})), store).states().values()
            found += [str(state.key) for state in states if state.record is not None]
        except RecipeError:
            if not found:
                raise
        except SDBuildError:
            pass  # its checkpoint is not here now; what was made of it is known by its bundles
        kept += found
    return kept


def _told(found: Garbage, is_done: bool) -> str:
    from sdbuild.base.units import counted, size
    from sdbuild.reports.du import table

    lines = []
    if found.files:
        for kind in ("variant", "stage"):
            lines += table(kind, found.tables[kind])
    verb = "freed" if is_done else "would free"
    lines.append(f"{verb} {size(found.freed_bytes)} of {counted(len(found.files), 'file')}; "
                 f"{size(found.kept_bytes)} stay")
    if found.later_bytes:
        lines.append(f"{size(found.later_bytes)} more when the files that share them go: "
                     "bundles that were moved or copied as links")
    lines += [f"kept whole: {folder}" for folder in found.kept_for]
    if not is_done and found.files:
        lines.append("nothing was removed; --yes does it")
    return "\n".join(lines)
