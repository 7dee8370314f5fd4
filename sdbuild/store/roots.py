"""Where bundles were put: what the store must keep whole, as long as they are there.

A small file for each place, `roots/<digest of the path>.json`, written by `install`. A bundle that
was taken away, moved, or replaced by something else counts no more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.digest import digest
from sdbuild.errors import StoreError
from sdbuild.store.disk import guarded, sweep, write_file
from sdbuild.store.listing import entries
from sdbuild.store.record import Record
from sdbuild.store.store import Store
from sdbuild.store.whole import LOST, fault

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A bundle in its place, and the record that it was laid out from."""

    folder: Path
    record: Record


def add(folder: Path, record: Record, store: Store) -> None:
    """Notes that the bundle of a record was put at `folder`. A store that is read-only forgets."""
    content = {"folder": str(folder), "key": record.key}
    with contextlib.suppress(OSError):
        write_file(_path(folder, store), json.dumps(content, indent=1).encode())


def roots(store: Store) -> Iterator[Root]:
    """Every bundle that still stands where it was put, in the order of their folders.

    Raises:
        StoreError: the store cannot be read now; what it holds for bundles must not go for that.
    """
    with guarded(store.root):
        found = [_read(path) for path in _notes(store)]
    for folder, key in sorted(filter(None, found), key=lambda note: str(note[0])):
        record = store.find(key)
        if record is not None and _stands(folder, record):
            yield Root(folder=folder, record=record)


def sweep_roots(store: Store) -> None:
    """Forgets the bundles that stand no more."""
    alive = {_path(root.folder, store) for root in roots(store)}
    for path in _notes(store):
        if path not in alive:
            sweep(path)


def _stands(folder: Path, record: Record) -> bool:
    """Whether a folder still holds the bundle of the record: it has the record's manifest, or one
    that cannot be read now."""
    wanted = record.part(MANIFEST)
    try:
        return bool(wanted) and not fault(folder / MANIFEST, wanted[0].digest)
    except StoreError:
        return True


def _notes(store: Store) -> list[Path]:
    return [path for path in entries(store.root / "roots") if path.suffix == ".json"]


def _path(folder: Path, store: Store) -> Path:
    return store.root / "roots" / f"{digest('root', str(folder))}.json"


def _read(path: Path) -> tuple[Path, str] | None:
    """The folder and the key that a note tells of."""
    try:
        found = json.loads(path.read_bytes())
        return Path(found["folder"]), found["key"]
    except (ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        if error.errno not in LOST:
            raise
        return None
