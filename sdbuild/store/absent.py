"""`gone.json`: the digests of files that are absent on purpose, so that `verify` does not report
them: evicted, virtual, or only in a shared store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sdbuild.base.digest import Digest
from sdbuild.base.parsing import Malformed, json_value
from sdbuild.store.disk import file_error, read_file, write_file
from sdbuild.store.record import is_digest


def read(path: Path) -> set[Digest]:
    """Returns the digests; none if there is no such list.

    Raises:
        StoreError: it cannot be read now.
    """
    try:
        found = json_value(read_file(path), path.name, Malformed, most_bytes=256 << 20)
        return {digest for digest in found if is_digest(digest)}
    except (FileNotFoundError, ValueError, TypeError):
        return set()
    except OSError as error:
        raise file_error(error, path) from error


def note(
    path: Path, digests: set[Digest], is_there: Callable[[Digest], bool], *, are_going: bool
) -> None:
    """Adds digests to the list, and removes those whose files are there, unless they
    `are_going`, to be deleted next. Hold the lock of the list."""
    before = read(path)
    absent = {digest for digest in before | digests if not is_there(digest)}
    after = absent | digests if are_going else absent
    if after != before:
        write_file(path, json.dumps(sorted(after), indent=0).encode())
