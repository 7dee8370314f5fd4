"""`history`: what was made, when, and what had changed each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sdbuild.cli.options import as_command, json_option, open_store, print_json, store_variables

if TYPE_CHECKING:
    from sdbuild.store import Record, Store


@as_command()
@click.argument("step", default="*", metavar="[STEP]")
@store_variables
@json_option
def command(step: str, words: dict[str, str], is_json: bool) -> int:
    """Show what was made, when, and what had changed.

    STEP is a step such as convert:unet, a stage or a component (default: all).
    """
    from sdbuild.base.errors import RecipeError
    from sdbuild.base.suggestions import did_you_mean
    from sdbuild.cli.format import as_json, made
    from sdbuild.reports.causes import causes, few
    from sdbuild.reports.lineage import Lineage

    store = open_store(words)
    lineage = Lineage(store.records())
    known = {name for r in lineage.records.values() for name in _names(r)}
    if step != "*" and step not in known:
        raise RecipeError(f"{step} was never made here{did_you_mean(step, known)}")
    before: dict[str, Record] = {}
    changes: list[tuple[Record, list[str]]] = []
    for record in lineage.records.values():
        if step == "*" or step in _names(record):
            old = before.get(record.step)
            changed = causes(old, record.ingredients, lineage, None) if old else []
            changes.append((record, changed))
        before[record.step] = record
    if is_json:
        print_json(artifacts=[as_json(r, store) | {"changed": c} for r, c in changes])
        return 0
    for record, changed in changes:
        gone = _gone(record, store)
        click.echo(f"{record.made_at[:16]}  {record.step:<24}{made(record)}{gone}")
        for cause in few(changed):
            click.echo(f"{'':18}{cause}")
    return 0


def _gone(record: Record, store: Store) -> str:
    """Returns what to say of an artifact that is not in the store, or not with all its files."""
    from sdbuild.store import SHIPPED

    missing = len(store.missing(record))
    if not missing:
        return ""
    if missing < len({e.digest for e in record.tree}):
        return "  (in part)"
    return "  (ships)" if record.origin == SHIPPED else "  (evicted)"


def _names(record: Record) -> tuple[str, ...]:
    """Returns the names of a record's step."""
    from sdbuild.reports.lineage import component, stage

    return record.step, stage(record), component(record)
