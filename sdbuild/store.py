"""The store: records by key, content by digest. The only truth of what has been made.

    records/<2>/<key>.json   what a step was made of and what came out; small, always kept
    objects/<2>/<digest>     the bytes of a file, read-only, once for every place that uses it
    work/<key>-<n>/          where a step works; left behind only by a kill
    locks/<key>              held while a step with this key runs
    stamps.json              digests of files outside, by their size and times (`stamps.py`)
    hub.json                 what is known of repositories of the Hub (`sources/hub.py`)

An artifact is a tree of files: a list of (path, digest, size). The objects come first and the
record last, each written under another name, synced and renamed, so that a kill at any moment
leaves either the whole artifact or none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdbuild.digest import digest, digest_file
from sdbuild.errors import CorruptArtifact, MissingArtifact, StoreError

_TAKEN_NS = 946_684_800 * 10**9
"""The modification time of every file in the pool, 1 January 2000: another one means that it was
written to since, through whatever link, and must be read again before it is trusted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an artifact; `path` is relative, with `/`."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of an artifact: what it was made of, what came out, what it cost.

    Units:
        seconds: wall clock; peak_bytes: the most anonymous memory that its process held.
    """

    key: str
    step: str
    ingredients: Mapping[str, Any]
    tree: tuple[Entry, ...]
    seconds: float
    peak_bytes: int
    made_at: str
    host: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, path: str) -> tuple[Entry, ...]:
        """The files at or below `path`; all of them if it is empty."""
        if not path:
            return self.tree
        return tuple(e for e in self.tree if e.path == path or e.path.startswith(f"{path}/"))

    def digest(self, path: str = "") -> str:
        """The digest of the artifact's content, or of one path of it."""
        return tree_digest(self.part(path))

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(entry.size_bytes for entry in self.tree)


def tree_digest(tree: tuple[Entry, ...]) -> str:
    """The digest of a tree: of the names and digests of its files."""
    return digest("tree", [[entry.path, entry.digest] for entry in tree])


class Store:
    """A store in the folder `root`, made when it is first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # records

    def find(self, key: str) -> Record | None:
        """The record of `key`, or None. One that cannot be read counts as none."""
        return self._read(self._record_path(key))

    def records(self) -> Iterator[Record]:
        """Every record, in no order."""
        for path in (self.root / "records").glob("*/*.json"):
            record = self._read(path)
            if record is not None:
                yield record

    def forget(self, key: str) -> bool:
        """Drops the record of `key`, so that its step runs again; says whether there was one."""
        try:
            self._record_path(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def _record_path(self, key: str) -> Path:
        return self.root / "records" / key[:2] / f"{key}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            found = json.loads(path.read_bytes())
            tree = tuple(Entry(*entry) for entry in found.pop("tree"))
            return Record(tree=tree, **found)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    # content

    def put(self, folder: Path, record: Record) -> Record:
        """Takes the files of `folder` in and then writes the record with their tree.

        Raises:
            StoreError: the file system does not take them (full, read-only).
        """
        try:
            tree = tuple(self._take(path, folder) for path in _files(folder))
            whole = Record(**{**_fields(record), "tree": tree})
            content = asdict(whole) | {
                "tree": [[e.path, e.digest, e.size_bytes] for e in tree]
            }
            write_file(self._record_path(record.key), json.dumps(content, indent=1).encode())
        except OSError as error:
            raise file_error(error, self.root) from error
        return whole

    def _take(self, path: Path, folder: Path) -> Entry:
        """Moves one file into the pool, unless its bytes are there already."""
        found = digest_file(path)
        size = path.stat().st_size
        target = self._object(found)
        entry = Entry(path.relative_to(folder).as_posix(), found, size)
        if not _is_whole(target, entry):
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
            os.utime(path, ns=(_TAKEN_NS, _TAKEN_NS))
            path.rename(target)
            _sync_folder(target.parent)
        return entry

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def has_content(self, record: Record) -> bool:
        """Whether every file of the artifact is in the pool, as it was taken in."""
        return all(_is_whole(self._object(e.digest), e) for e in record.tree)

    def file(self, record: Record, path: str) -> Path:
        """Where the pool has one file of the artifact, to be read only.

        Raises:
            MissingArtifact: it is not whole in the pool.
        """
        for entry in record.part(path):
            source = self._object(entry.digest)
            if _is_whole(source, entry):
                return source
        raise MissingArtifact(f"{record.step} ({record.key[:8]}): {path} is not in the store")

    def verify(self, record: Record) -> None:
        """Reads every file of the artifact again.

        Raises:
            MissingArtifact, CorruptArtifact: names the file.
        """
        for entry in record.tree:
            path = self._object(entry.digest)
            where = f"{record.step} ({record.key[:8]}): {entry.path}"
            if not path.is_file():
                raise MissingArtifact(f"{where} is not in the store")
            if digest_file(path) != entry.digest:
                path.unlink()
                raise CorruptArtifact(
                    f"{where} is damaged; it has been dropped", hint="build again to make it anew"
                )

    def checkout(self, record: Record, target: Path, path: str = "") -> Path:
        """Lays the artifact out at `target` as links into the pool, or copies where links fail.

        With `path`, only that part; a single file is laid out at `target` itself.

        Raises:
            MissingArtifact: some of its content is not in the pool.
            StoreError: the file system does not take it.
        """
        try:
            for entry in record.part(path):
                relative = entry.path[len(path):].lstrip("/")
                self._link(entry, target / relative if relative else target)
        except OSError as error:
            raise file_error(error, target) from error
        return target

    def _link(self, entry: Entry, target: Path) -> None:
        source = self._object(entry.digest)
        if not _is_whole(source, entry):
            raise MissingArtifact(f"{entry.path} ({entry.digest[:8]}) is not whole in the store")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(source, target)
            target.chmod(0o444)
            os.utime(target, ns=(_TAKEN_NS, _TAKEN_NS))

    def is_laid_out(self, record: Record, target: Path) -> bool:
        """Whether `target` holds exactly the files of the artifact."""
        wanted = {entry.path: entry for entry in record.tree}
        found = {path.relative_to(target).as_posix(): path for path in _files(target)}
        return wanted.keys() == found.keys() and all(
            _is_whole(path, wanted[name]) for name, path in found.items()
        )

    # work

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Holds the lock of `key`; waits for whoever holds it. It goes with the process."""
        path = self.root / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError as error:
            raise file_error(error, self.root) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def workspace(self, key: str) -> Iterator[Path]:
        """An empty folder to work in, gone afterwards. Hold the lock of `key`.

        What killed runs left behind goes too.
        """
        parent = self.root / "work"
        for left in parent.glob("*-*"):
            self._sweep(left, key)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{key}-"))
        except OSError as error:
            raise file_error(error, self.root) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


    def _sweep(self, left: Path, held: str) -> None:
        """Removes a workspace that nobody works in: its lock is free, or is held by ourselves."""
        key = left.name.partition("-")[0]
        lock = self.root / "locks" / key
        if key != held and lock.exists():
            with lock.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
        shutil.rmtree(left, ignore_errors=True)


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}


def _files(folder: Path) -> list[Path]:
    """The files below `folder`, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _is_whole(path: Path, entry: Entry) -> bool:
    """Whether a file is that of the entry; it is read only if it was written to since."""
    try:
        status = path.stat()
        if status.st_size != entry.size_bytes:
            return False
        return status.st_mtime_ns == _TAKEN_NS or digest_file(path) == entry.digest
    except OSError:
        return False


def write_file(path: Path, content: bytes) -> None:
    """Writes a small file whole or not at all: under another name, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_error(error: OSError, where: Path) -> StoreError:
    """What the file system refused, with what helps."""
    hints = {
        errno.ENOSPC: "free some space, or put the store elsewhere with cache=PATH",
        errno.EROFS: "put the store where it can be written, with cache=PATH",
        errno.EACCES: "put the store where it can be written, with cache=PATH",
    }
    return StoreError(
        f"{where}: {error.strerror or error}", hint=hints.get(error.errno or 0, "")
    )
