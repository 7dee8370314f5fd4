"""`verify`: reads every byte of the store again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sdbuild.cli.options import as_command, json_option, open_store, print_json, store_variables

if TYPE_CHECKING:
    from sdbuild.reports.verify import Progress


@as_command()
@store_variables
@json_option
def command(words: dict[str, str], is_json: bool) -> int:
    """Read the whole store and drop what is damaged.

    The exit status is 1 if anything was.
    """
    from sdbuild.reports.verify import format_verified, verify

    found = verify(open_store(words), _progress())
    if is_json:
        print_json(**asdict(found), is_whole=found.is_whole)
    else:
        click.echo(format_verified(found))
    return 0 if found.is_whole else 1


def _progress() -> Progress:
    """Reports on a terminal how far it is; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    from sdbuild.base.units import size

    def tell(done: int, total: int) -> None:
        end = "" if done < total else "\r\033[K"
        sys.stderr.write(f"\r\033[K{size(done)} of {size(total)} read{end}")
        sys.stderr.flush()
    return tell
