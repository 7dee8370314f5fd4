"""Where bundles were put: what the store must keep whole, as long as they are there.

A small file for each place, `roots/<digest of the path>.json`, written by `install`. A bundle that
was taken away, moved, or replaced by something else counts no more.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sdbuild.digest import digest, digest_file
from sdbuild.store.disk import file_error, guarded, sweep, write_file
from sdbuild.store.record import Record
from sdbuild.store.store import Store
from sdbuild.store.whole import LOST

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A bundle in its place; `key` is that of the record it was laid out from."""

    folder: Path
    key: str
    installed_at: str


def add(folder: Path, record: Record, store: Store) -> None:
    """Notes that the bundle of a record was put at `folder`. A store that is read-only forgets."""
    content = {
        "folder": str(folder), "key": record.key,
        "installed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        write_file(_path(folder, store), json.dumps(content, indent=1).encode())


def roots(store: Store) -> Iterator[Root]:
    """Every bundle that still stands where it was put, in the order of their folders.

    Raises:
        StoreError: the store cannot be read now; what it holds for bundles must not go for that.
    """
    with guarded(store.root):
        found = [_read(path) for path in (store.root / "roots").glob("*.json")]
    for root in sorted(filter(None, found), key=lambda root: str(root.folder)):
        record = store.find(root.key)
        if record is not None and stands(root, record):
            yield root


def sweep_roots(store: Store) -> None:
    """Forgets the bundles that stand no more."""
    alive = {_path(root.folder, store) for root in roots(store)}
    for path in (store.root / "roots").glob("*.json"):
        if path not in alive:
            sweep(path)


def stands(root: Root, record: Record) -> bool:
    """Whether the folder still holds the bundle of the record: it has the record's manifest.

    Raises:
        StoreError: too many files are open to tell.
    """
    wanted = record.part(MANIFEST)
    try:
        return bool(wanted) and digest_file(root.folder / MANIFEST) == wanted[0].digest
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # which says nothing of the bundle
            raise file_error(error, root.folder / MANIFEST) from error
        return False


def _path(folder: Path, store: Store) -> Path:
    return store.root / "roots" / f"{digest('root', str(folder))}.json"


def _read(path: Path) -> Root | None:
    try:
        found = json.loads(path.read_bytes())
        return Root(folder=Path(found["folder"]), key=found["key"],
                    installed_at=found["installed_at"])
    except (ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        if error.errno not in LOST:
            raise
        return None
