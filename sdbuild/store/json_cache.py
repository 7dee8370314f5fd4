"""Facts that a store caches besides its records, so that they need not be computed again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from sdbuild.base.errors import StoreError
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.store.disk import read_file, write_file
from sdbuild.store.store import Store

_LARGEST_BYTES = 256 << 20


class Notes(MutableMapping[str, Any]):
    """A JSON object in the store's file `<name>.json`, which several processes add to.

    A file that cannot be read counts as empty, and one that cannot be written stays as it is:
    everything in it can be found out again. Notes make no store, so that commands that only ask
    leave none: this process remembers them, and writes them once a build has made one.
    """

    _unwritten: ClassVar[dict[tuple[Path, str], dict[str, Any]]] = {}

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._held = self._unwritten.setdefault((store.root, name), {})

    def __repr__(self) -> str:
        return f"{self._name}.json in {self._store.root}"

    def __getitem__(self, key: str) -> Any:
        return self._load()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._held[key] = value
        self._settle()

    def __delitem__(self, key: str) -> None:
        self._settle()
        if self._held:
            del self._held[key]
            return
        with self._locked():
            content = self._read()
            del content[key]
            self._write(content)

    def _locked(self) -> AbstractContextManager[None]:
        return self._store.locked(self._name, f"note in {self._name}.json")

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def _load(self) -> dict[str, Any]:
        self._settle()
        try:
            return self._read() | self._held
        except OSError:
            return dict(self._held)

    def _settle(self) -> None:
        """Writes what is held, if there is a store to write it to."""
        if self._held and (self._store.root / "locks").is_dir():
            with contextlib.suppress(StoreError, OSError), self._locked():
                self._write(self._read() | self._held)
                self._held.clear()

    def _read(self) -> dict[str, Any]:
        """Returns what is written over next, so that what only cannot be read now is not lost."""
        try:
            content = read_file(self._store.root / f"{self._name}.json")
            return json_object(content, self._name, Malformed, most_bytes=_LARGEST_BYTES,
                               has_infinities=True, has_controls=True)
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, content: dict[str, Any]) -> None:
        path = self._store.root / f"{self._name}.json"
        write_file(path, json.dumps(content, indent=1).encode())
