"""The marker that a shared store carries, and what else may lie where one is named.

A place without it may be somebody's local store, whose records have the same names and would be
overwritten. So nothing is written before the place is known to be a shared store, or empty.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sdbuild.base.errors import RecipeError, SDBuildError
from sdbuild.base.filenames import is_system_file
from sdbuild.base.parsing import json_object, shown
from sdbuild.store.remote.envelope import LARGEST_BYTES
from sdbuild.store.remote.transport import TooLarge, Transport

MARKER = "sdbuild-shared.json"
_CONTENT = {"format": "sdbuild shared store", "version": 1}
_OWN = ("records", "objects")
_SAMPLED = 8
"""Records that are read of an unmarked store. Those of one store have one form."""


def is_marked(there: Transport) -> bool:
    """Whether a place carries the marker; a damaged one is none.

    Raises:
        RemoteFailed: it cannot be read.
    """
    content = _read(there, MARKER)
    try:
        return json_object(content, MARKER).get("format") == _CONTENT["format"]
    except SDBuildError:  # such as the page that a server gives for everything
        return False


def mark(there: Transport) -> None:
    """Writes the marker.

    Raises:
        RemoteFailed: the place does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="sdbuild-") as folder:
        path = Path(folder) / MARKER
        path.write_text(json.dumps(_CONTENT) + "\n", "utf-8")
        there.write(path, MARKER)


def check_unmarked(there: Transport) -> None:
    """Makes sure that a place without the marker may become a shared store: it is empty, or holds
    the records and objects of one from before there were markers, and nothing else.

    Raises:
        RecipeError: it holds something else; says what.
        RemoteFailed: it cannot be listed.
    """
    names = [name for name in there.names() if _counts(name)]
    others = sorted(shown(Path(name)) for name in names if name not in _OWN)
    if not others and "records" in names:
        sample = islice(_records(there), _SAMPLED)
        others = [f"the record {name} of a local store" for name in sample
                  if is_local(_read(there, name))]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise RecipeError(
            f"remote={there}: holds {', '.join(others[:3])}{more}, expected a shared store or an "
            "empty folder; nothing was written",
            hint="use an empty folder, such as a new one in it. To share a local store, "
                 "upload its artifacts to another URL: sdbuild push build remote=URL",
        )


def is_local(content: bytes) -> bool:
    """Whether these bytes are a record as local stores have them, which nobody else may replace."""
    try:
        found = json_object(content, "record", has_infinities=True, has_controls=True)
    except SDBuildError:
        return False
    return "mac" not in found and {"key", "tree", "ingredients"} <= found.keys()


def _counts(name: str) -> bool:
    """Hidden files are of systems, and of uploads that were killed."""
    return name != MARKER and not name.startswith(".") and not is_system_file(name)


def _records(there: Transport) -> Iterator[str]:
    for folder in there.names("records"):
        for name in there.names(f"records/{folder}"):
            if name.endswith(".json"):
                yield f"records/{folder}/{name}"


def _read(there: Transport, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="sdbuild-") as folder:
        path = Path(folder) / "file"
        try:
            return path.read_bytes() if there.read(name, path, LARGEST_BYTES) else b""
        except TooLarge:
            return b""
