"""`find`: artifacts by what they were made from."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command, json_option, open_store, print_json, store_variables


@as_command(has_terms=True)
@click.argument("terms", nargs=-1, metavar="[FIELD=VALUE]...")
@store_variables
@json_option
def command(terms: tuple[str, ...], words: dict[str, str], is_json: bool) -> int:
    """Find artifacts by ingredients, facts and cost.

    A term compares with = != < <= > or >=, and all must hold: sdbuild find 'tool.coremltools<9'
    params.nbits=4 (docs/store.md). The exit status is 1 if nothing is found.
    """
    from sdbuild.base.units import counted
    from sdbuild.cli.format import as_json, made
    from sdbuild.reports.find import find

    store = open_store(words)
    found = find(store.records(), terms)
    if is_json:
        print_json(artifacts=[as_json(record, store) for record in found])
    else:
        for record in found:
            click.echo(f"{record.made_at[:16]}  {record.step:<24}{made(record)}")
        click.echo(counted(len(found), "artifact"))
    return 0 if found else 1
