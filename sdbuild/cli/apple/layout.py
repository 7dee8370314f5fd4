"""The folder that Apple's converter writes into, with a note of what sdbuild put there.

Only what this command put there, and nobody changed since, is ever replaced or removed. The note
also says what each model was made from, so that none is stale: of the converter's, files that are
there count as made, whatever they were made of.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.base.digest import Digest, digest, digest_file
from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import Malformed, json_file
from sdbuild.store.disk import exchange, guarded, make_folder, sweep, write_file
from sdbuild.store.locks import locked
from sdbuild.store.scan import files

OTHER = "choose another folder with -o DIR"
NOTE = ".sdbuild-torch2coreml.json"
ABSENT, OURS, FOREIGN = "absent", "ours", "foreign"


class Output:
    """The folder `-o`.

    Raises:
        BundleError: it is a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise BundleError(f"{folder}: not a folder", hint=OTHER)
        self._noted = _read(folder / NOTE)
        self._digests: dict[str, Digest] = {}

    def expect_writable(self) -> None:
        """Makes sure that files can be written there, before there are some.

        Raises:
            StoreError: the file system does not take them.
        """
        with guarded(self.folder, OTHER):
            make_folder(self.folder)
            with tempfile.TemporaryFile(dir=self.folder):
                pass

    def path(self, name: str) -> Path:
        """Returns where something of this name is, or would be."""
        return self.folder / name

    def digest(self, name: str) -> Digest:
        """Returns the digest of what is there."""
        if name not in self._digests:
            self._digests[name] = tree_digest(self.path(name))
        return self._digests[name]

    def state(self, name: str) -> str:
        """Returns whether something is there, and whose it is."""
        if not self.path(name).exists():
            return ABSENT
        return OURS if self._noted.get(name, {}).get("digest") == self.digest(name) else FOREIGN

    def source(self, name: str) -> str:
        """Returns the digest of what a model of ours was made from; empty if it is none of ours."""
        return self._noted[name]["made_from"] if self.state(name) == OURS else ""

    def put(self, name: str, made_from: str, make: Callable[[Path], object]) -> bool:
        """Puts there what `make` writes at a path; says whether that is something new.

        Raises:
            BundleError: something stands there that sdbuild did not put there.
            StoreError: the file system does not take it.
        """
        path = self.path(name)
        with guarded(path, OTHER):
            make_folder(path.parent)
            work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
            try:
                make(work / "new")
                made = tree_digest(work / "new")
                is_new = self.state(name) == ABSENT or self.digest(name) != made
                if is_new:
                    self.refuse_foreign(name)
                    _exchange(work / "new", path, work / "old")
                self._digests[name] = made
                self._note(name, {"digest": made, "made_from": made_from})
            finally:
                sweep(work)
        return is_new

    def remove(self, name: str) -> None:
        """Removes something that sdbuild put there.

        Raises:
            BundleError: sdbuild did not.
        """
        self.refuse_foreign(name)
        path = self.path(name)
        with guarded(path, OTHER):
            shutil.rmtree(path)
            self._digests.pop(name, None)
            self._note(name, None)

    def refuse_foreign(self, name: str) -> None:
        """Refuses to touch what others put there.

        Raises:
            BundleError: they did.
        """
        if self.state(name) == FOREIGN:
            raise BundleError(
                f"{self.path(name)}: sdbuild did not make it, or it was changed since, so it is "
                "left alone", hint=f"move it away, or {OTHER}")

    def _note(self, name: str, entry: Mapping[str, str] | None) -> None:
        """Records what was put there, or that it was removed, in the note as it is now: another
        command may write to it at the same time."""
        with locked(self.folder, "the note of torch2coreml"):
            self._noted = _read(self.folder / NOTE)
            self._noted.pop(name, None)
            if entry is not None:
                self._noted[name] = dict(entry)
            content = {"schema": 1, "models": dict(sorted(self._noted.items()))}
            write_file(self.folder / NOTE, (json.dumps(content, indent=2) + "\n").encode())


def tree_digest(path: Path) -> Digest:
    """Returns the digest of a file, or of a folder with all files in it."""
    if path.is_file():
        return digest_file(path)
    return digest("folder", {file.relative_to(path).as_posix(): digest_file(file)
                             for file in files(path)})


def _exchange(new: Path, place: Path, old: Path) -> None:
    if new.is_dir():
        exchange(new, place, old)
    else:
        new.replace(place)


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Returns what the note says; nothing if there is none, or it is broken: all is foreign."""
    try:
        found = json_file(path, Malformed).get("models")
    except (OSError, ValueError):
        return {}
    return {name: dict(entry) for name, entry in found.items() if _is_entry(entry)} \
        if isinstance(found, Mapping) else {}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, Mapping) and all(
        isinstance(entry.get(key), str) for key in ("digest", "made_from"))
