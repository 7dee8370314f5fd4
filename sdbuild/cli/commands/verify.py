"""`verify`: reads every byte of the store again, or of a finished bundle."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdbuild.cli.options import (
    OutsidePath,
    as_command,
    json_option,
    open_store,
    print_json,
    store_variables,
    variables,
)
from sdbuild.recipe.fields import VARIANT_FIELD

if TYPE_CHECKING:
    from sdbuild.reports.verify import Progress


@as_command()
@click.argument("bundle", type=OutsidePath(), required=False)
@store_variables
@variables("Settings", VARIANT_FIELD)
@json_option
def command(bundle: Path | None, words: dict[str, str], is_json: bool) -> int:
    """Read the whole store and drop what is damaged.

    BUNDLE is a finished bundle from any tool, to verify instead of the store: a folder, a
    zip, or hub:owner/name. It is not changed. The exit status is 1 if anything is damaged.
    """
    from sdbuild.reports.verify import format_verified, verify

    if bundle is not None:
        return _of_bundle(bundle, words, is_json)
    found = verify(open_store(words), _progress())
    if is_json:
        print_json(**asdict(found), is_whole=found.is_whole)
    else:
        click.echo(format_verified(found))
    return 0 if found.is_whole else 1


def _of_bundle(place: Path, words: dict[str, str], is_json: bool) -> int:
    from sdbuild.bundle.places import located
    from sdbuild.reports.verify_bundle import format_verified_bundle, verify_bundle

    with located(place, words.get("variant")) as (folder, notes):
        for note in notes:
            click.echo(note, err=True)
        found = verify_bundle(folder)
    if is_json:
        print_json(**asdict(found) | {"bundle": str(place)}, is_whole=found.is_whole)
    else:
        click.echo(format_verified_bundle(found))
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
