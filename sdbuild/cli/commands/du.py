"""`du`: the disk usage of the store."""

from __future__ import annotations

from dataclasses import asdict

import click

from sdbuild.cli.options import as_command, json_option, open_store, print_json, store_variables


@as_command()
@store_variables
@json_option
def command(words: dict[str, str], is_json: bool) -> int:
    """Show disk usage by bundle, component and stage."""
    from sdbuild.reports.du import format_usage, usage

    found = usage(open_store(words))
    if is_json:
        print_json(**asdict(found))
    else:
        click.echo(format_usage(found))
    return 0
