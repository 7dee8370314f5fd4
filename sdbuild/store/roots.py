"""Installed bundles, whose content the store keeps as long as they exist.

A small file for each place and bundle, `roots/<digest of both>.json`, written before the bundle
takes its place, so that no kill leaves one that is not noted. A bundle that was taken away, moved,
or replaced by something else counts no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import digest
from sdbuild.base.errors import StoreError
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.store.disk import file_error, read_file, sweep, write_file
from sdbuild.store.integrity import LOST, fault
from sdbuild.store.record import Record, is_digest
from sdbuild.store.scan import entries
from sdbuild.store.store import Store

MANIFEST = "manifest.json"
"""The file of a bundle that says what all its files are, and so which bundle it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A bundle in its place, and the record that it was laid out from."""

    folder: Path
    record: Record


def add(folder: Path, record: Record, store: Store) -> None:
    """Notes that the bundle of a record goes to `folder`; not in a store that is read-only, where
    nobody collects.

    Raises:
        StoreError: the file system does not take the note.
    """
    name = digest("root", [str(folder), record.key])
    content = {"folder": str(folder), "key": record.key}
    try:
        write_file(store.root / "roots" / f"{name}.json", json.dumps(content, indent=1).encode())
    except OSError as error:
        if os.access(store.root, os.W_OK):
            raise file_error(error, store.root) from error


def roots(store: Store) -> Iterator[Root]:
    """Yields every bundle that still stands where it was put, in the order of their folders.

    Raises:
        StoreError: the store cannot be read now; what it holds for bundles must not go for that.
    """
    found = filter(None, (_read(path, store) for path in _files(store)))
    once = {(root.folder, root.record.key): root for root in found}
    yield from sorted(once.values(), key=lambda root: str(root.folder))


def sweep_roots(store: Store) -> None:
    """Forgets the bundles that stand no more."""
    for path in _files(store):
        if _read(path, store) is None:
            sweep(path)


def _files(store: Store) -> list[Path]:
    return [path for path in entries(store.root / "roots")
            if path.suffix == ".json" and is_digest(path.stem)]


def _read(path: Path, store: Store) -> Root | None:
    """Returns the bundle that a note tells of, if it stands."""
    try:
        note = json_object(read_file(path), path.name, Malformed)
        folder, record = Path(note["folder"]), store.find(note["key"])
    except (ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        if error.errno not in LOST:
            raise file_error(error, path) from error
        return None
    if record is None or not _is_installed(folder, record):
        return None
    return Root(folder=folder, record=record)


def _is_installed(folder: Path, record: Record) -> bool:
    """Whether a folder still holds the bundle of the record: it has the record's manifest, or one
    that cannot be read now."""
    wanted = record.part(MANIFEST)
    try:
        return bool(wanted) and not fault(folder / MANIFEST, wanted[0].digest)
    except StoreError:
        return True
