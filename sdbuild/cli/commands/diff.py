"""`diff`: what a device downloads again where one bundle takes the place of another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sdbuild.base.units import size
from sdbuild.cli.options import OutsidePath, as_command, json_option, print_json


@as_command()
@click.argument("before", type=OutsidePath())
@click.argument("after", type=OutsidePath())
@json_option
def command(before: Path, after: Path, is_json: bool) -> int:
    """Show what a device downloads again for an update.

    BEFORE and AFTER are bundles, or models. Files are compared by content, those of each component
    together.
    """
    from sdbuild.publish.changes import changes

    found = changes(before, after)
    if is_json:
        print_json(components=[asdict(each) for each in found.components],
                   bytes=found.size_bytes, whole_bytes=found.whole_bytes)
        return 0
    for each in found.components:
        if each.files or each.gone:
            gone = f", {len(each.gone)} gone" if each.gone else ""
            click.echo(f"{each.name:<20}{size(each.size_bytes):>10}  "
                       f"{len(each.files)} of {each.count} files{gone}")
            for path in (*each.files, *(f"{path}  gone" for path in each.gone)):
                click.echo(f"    {path}")
        else:
            click.echo(f"{each.name:<20}{'unchanged':>10}")
    click.echo(f"{'to download':<20}{size(found.size_bytes):>10}  of {size(found.whole_bytes)}")
    return 0
