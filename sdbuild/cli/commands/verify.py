"""`verify`: every byte of the store read again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from sdbuild.cli.commands import add_cache, add_json, opened, print_json

if TYPE_CHECKING:
    from sdbuild.reports.verify import Progress

HELP = "read the whole store again, and drop what is damaged"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the store and `--json`."""
    add_cache(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints every damaged file and what it means; 1 if there was any."""
    from sdbuild.reports.verify import told, verify

    found = verify(opened(options), _progress())
    if options.json:
        print_json(**asdict(found), is_whole=found.is_whole)
    else:
        print(told(found))
    return 0 if found.is_whole else 1


def _progress() -> Progress:
    """Tells on a terminal how far it is; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    from sdbuild.base.units import size

    def tell(done: int, total: int) -> None:
        end = "" if done < total else "\r\033[K"
        sys.stderr.write(f"\r\033[K{size(done)} of {size(total)} read{end}")
        sys.stderr.flush()
    return tell
