"""`gc`: deletes artifacts that nothing refers to; a dry run without `--yes`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sdbuild.base.digest import Key
from sdbuild.base.units import parse_bytes, parse_seconds
from sdbuild.cli.options import as_command, json_option, open_store, print_json, store_variables

if TYPE_CHECKING:
    from sdbuild.reports.gc import Garbage
    from sdbuild.store import Store


@as_command()
@click.option("--keep", multiple=True, metavar="RECIPE",
              help="Keep what this recipe's bundles were made from; may be repeated.")
@click.option("--max-size", metavar="SIZE",
              help="Delete the least recently used until the store has this size (20G); the "
              "artifacts of installed bundles go last.")
@click.option("--older-than", metavar="TIME", help="Delete only what was not used so long (30d).")
@click.option("--yes", "is_done", is_flag=True, help="Delete (default: dry run).")
@store_variables
@json_option
def command(
    keep: tuple[str, ...], max_size: str | None, older_than: str | None, is_done: bool,
    words: dict[str, str], is_json: bool,
) -> int:
    """Delete unreferenced artifacts (default: dry run).

    Artifacts that a bundle in its place was made from are kept.
    """
    from sdbuild.reports.gc import collect, garbage

    store = open_store(words)
    found = (collect if is_done else garbage)(
        store, _kept(keep, store),
        max_bytes=parse_bytes(max_size, "--max-size") if max_size else None,
        before=time.time() - parse_seconds(older_than, "--older-than") if older_than else None,
    )
    if is_json:
        content = asdict(found)
        print_json(is_done=is_done, files=len(content.pop("files")), **content)
    else:
        click.echo(_format(found, is_done))
    return 0


def _kept(names: Iterable[str], store: Store) -> list[Key]:
    """Returns the keys of every variant of some recipes: their bundles, or what there is of them.

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
            found += [state.record.key for state in states if state.record is not None]
        except RecipeError:
            if not found:
                raise
        except SDBuildError:
            pass  # its checkpoint is not here now; what was made of it is known by its bundles
        kept += found
    return kept


def _format(found: Garbage, is_done: bool) -> str:
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
    lines += [f"kept: {folder}" for folder in found.kept_for]
    if not is_done and found.files:
        lines.append("nothing was deleted (dry run); --yes deletes")
    return "\n".join(lines)
