"""Digests of files outside the store, remembered by the files' stamps.

A checkpoint of gigabytes is not read again to find that nothing changed. The stamp is size,
modification time, change time and inode; a file so young that it could change within the clock's
resolution is not remembered (git calls such entries racy).
"""

from __future__ import annotations

import time
from pathlib import Path

from sdbuild.base.digest import sha256_file
from sdbuild.store.json_cache import Notes
from sdbuild.store.store import Store

_RACY_NS = 2_000_000_000
_KIND = "sha256:"
"""The prefix of digests, as on the Hub. Those of older stores, xxh3, have none."""


def source_digest(path: Path, store: Store) -> str:
    """Returns the SHA-256 of the file at `path`; it is read only if its stamp is new."""
    notes = Notes(store, "stamps")
    stamp = _stamp(path)
    known = notes.get(str(path))
    if not isinstance(known, list) or len(known) != 2:
        known = [None, ""]
    if known[0] == stamp and str(known[1]).startswith(_KIND):
        return str(known[1])
    found = _KIND + sha256_file(path)
    if _stamp(path) == stamp and max(stamp[1], stamp[2]) + _RACY_NS < time.time_ns():
        notes[str(path)] = [stamp, found]
    return found


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

