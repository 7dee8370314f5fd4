"""The store: records by key, content by digest. The only truth of what has been made.

    records/<2>/<key>.json   what a step was made of and what came out; small, always kept
    objects/<2>/<digest>     the bytes of a file, read-only, once for every place that uses it
    roots/<digest>.json      where a bundle was put (`roots.py`)
    gone.json                digests of files that are absent on purpose (`absent.py`)
    work/<key>-<n>/          where a step works; left behind only by a kill
    locks/<key>              held while a step with this key runs
    locks/store              held by builds together, and alone by who takes content away
    locks/ram/               what running steps may hold of the memory (`engine/memory_budget.py`)
    stamps.json              digests of files outside, by their size and times (`stat_cache.py`)
    hub.json                 what is known of repositories of the Hub (`checkpoints/hub/hub.py`)

The time of a record's file says when it was last used.

An artifact is a tree of files: a list of (path, digest, size). The objects come first and the
record last, each written under another name, synced and renamed, so that a kill at any moment
leaves either the whole artifact or none.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from sdbuild.base.digest import Digest, Key, digest_file
from sdbuild.base.errors import CorruptArtifact, MissingArtifact
from sdbuild.base.filenames import normalized
from sdbuild.store import absent
from sdbuild.store.disk import (
    drop,
    file_error,
    guarded,
    ingest,
    link_out,
    read_file,
    sweep,
    touch,
    write_file,
)
from sdbuild.store.integrity import DAMAGED, LOST, fault, flaw, is_intact, is_laid_out, is_same
from sdbuild.store.locks import is_held, locked
from sdbuild.store.record import Entry, Record, decoded, encoded, is_digest, is_key
from sdbuild.store.scan import entries, filed, files, refuse_collision

_USED_EVERY_S = 3600
"""The resolution of the time of last use."""


class Store:
    """A store in the folder `root`, made when it is first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._damage: dict[Digest, str] = {}  # of the files dropped by this process

    # records

    def find(self, key: Key) -> Record | None:
        """Returns the record of `key`, or None. One that is damaged counts as none.

        Raises:
            StoreError: it cannot be read now, which says nothing of it.
        """
        return self._read(self._record_path(key)) if is_key(key) else None

    def records(self) -> Iterator[Record]:
        """Yields every record, in no order."""
        for path in self._record_paths():
            record = self._read(path)
            if record is not None:
                yield record

    def forget(self, key: Key) -> bool:
        """Drops the record of `key`, so that its step runs again; says whether there was one.

        Raises:
            StoreError: the store cannot be written to.
        """
        with guarded(self.root):
            return drop(self._record_path(key))

    def disown(self, record: Record) -> None:
        """Drops a record that is not believed, and the files that came with it; may raise as both
        of these do."""
        self.evict({entry.digest for entry in record.tree})
        self.forget(record.key)

    def used(self, record: Record) -> None:
        """Notes that an artifact is used now, for those who collect what nobody uses."""
        if time.time() - self.last_used(record) > _USED_EVERY_S:
            touch(self._record_path(record.key))

    def last_used(self, record: Record) -> float:
        """Returns the time of its last use by a build, in seconds since 1970."""
        try:
            return self._record_path(record.key).stat().st_mtime
        except OSError:
            return 0.0

    def unreadable(self) -> Iterator[Path]:
        """Yields the records that cannot be read."""
        return (p for p in self._record_paths() if p.is_file() and self._read(p) is None)

    def drop_record(self, path: Path) -> None:
        """Removes a record that cannot be read.

        Raises:
            StoreError: the store cannot be written to.
        """
        with guarded(self.root):
            drop(path)

    def _record_paths(self) -> Iterator[Path]:
        return (p for p in filed(self.root / "records") if p.suffix == ".json" and is_key(p.stem))

    def _record_path(self, key: Key) -> Path:
        return self.root / "records" / key[:2] / f"{key}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            return decoded(read_file(path), Key(path.stem))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        except OSError as error:
            if error.errno not in LOST:
                raise file_error(error, path) from error
            return None

    # content

    def put(self, folder: Path, record: Record, virtual: Sequence[Entry] = ()) -> Record:
        """Takes the files of `folder` in and then writes the record with their tree.

        Args:
            virtual: files of the artifact that are not in `folder` and not stored.

        Raises:
            StoreError: the file system does not take them (full, read-only), or names collide.
        """
        with guarded(self.root):
            tree = tuple(self._ingest(path, folder) for path in files(folder))
            if virtual:
                self._note_absent({entry.digest for entry in virtual})
                tree = tuple(sorted((*tree, *virtual), key=lambda e: PurePosixPath(e.path)))
        refuse_collision(record.step, [entry.path for entry in tree])
        whole = replace(record, tree=tree)
        self.keep(whole)
        return whole

    def keep(self, record: Record) -> None:
        """Writes a record, whose content is in the pool.

        Raises:
            StoreError: the file system does not take it.
        """
        with guarded(self.root):
            write_file(self._record_path(record.key), encoded(record))

    def add_remote_record(self, record: Record) -> None:
        """Writes a record whose content is elsewhere; nobody misses what is not here yet.

        Raises:
            StoreError: the file system does not take it.
        """
        with guarded(self.root):
            self._note_absent({e.digest for e in record.tree})
        self.keep(record)

    def accept(self, path: Path, entry: Entry) -> None:
        """Moves a file that came from elsewhere into the pool.

        Raises:
            CorruptArtifact: it is not the file of the entry.
            StoreError: the file system does not take it.
        """
        with guarded(self.root):
            if digest_file(path) != entry.digest:
                raise CorruptArtifact(f"{entry.path} is not what its digest says")
            ingest(path, self.object(entry.digest))

    def _ingest(self, path: Path, folder: Path) -> Entry:
        """Moves one file into the pool, unless its bytes are there already."""
        found = digest_file(path)
        name = normalized(path.relative_to(folder).as_posix())
        entry = Entry(name, found, path.stat().st_size)
        target = self.object(found)
        if not is_same(target, path) and fault(target, found):
            ingest(path, target)
        return entry

    def object(self, digest: Digest) -> Path:
        """Returns where the file with a digest is, or would be."""
        return self.root / "objects" / digest[:2] / digest

    def objects(self) -> Iterator[Path]:
        """Yields every file of the pool, in no order."""
        return (p for p in filed(self.root / "objects") if is_digest(p.name))

    def file(self, record: Record, path: str) -> Path:
        """Returns where the pool has one file of the artifact, to be read only.

        Raises:
            MissingArtifact: it is not whole in the pool.
            StoreError: it cannot be read now, which says nothing of it.
        """
        for entry in record.part(path):
            source = self.object(entry.digest)
            if is_intact(source, entry):
                return source
        raise MissingArtifact(f"{record.step} ({record.key[:8]}): {path} is not in the store")

    def has_content(self, record: Record, path: str = "") -> bool:
        """Whether every file of the artifact is in the pool, as far as sizes and times tell.

        With `path`, only those of that part.

        Raises:
            StoreError: one cannot be read now, which says nothing of it.
        """
        return not self.missing(record, path)

    def missing(self, record: Record, path: str = "") -> list[Entry]:
        """The distinct files of the artifact, or of one path of it, that are not in the pool.

        Raises:
            StoreError: one cannot be read now, which says nothing of it.
        """
        distinct = {e.digest: e for e in record.part(path)}.values()
        return [e for e in distinct if not is_intact(self.object(e.digest), e)]

    def flaws(
        self, key: Key, path: str = "", counts: Callable[[str], bool] = lambda path: True
    ) -> list[str]:
        """Returns what is wrong with what was made under a key, or with one path of it: its record,
        or its files that count, each in words; nothing if it is whole, or was never made.

        Raises:
            StoreError: it cannot be read now, which says nothing of it.
        """
        record = self.find(key)
        if record is None:
            return ["its record is damaged"] if self._record_path(key).exists() else []
        return [f"{entry.path} {self._flaw(entry)}" for entry in self.missing(record, path)
                if counts(entry.path)]

    def _flaw(self, entry: Entry) -> str:
        path = self.object(entry.digest)
        dropped = "" if path.exists() else self._damage.get(entry.digest, "")
        return dropped or flaw(path, entry)

    def faults(self, files: Iterable[tuple[Path, Digest]]) -> Iterator[str]:
        """The fault of each file that should have a digest, read by several threads; in order."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            yield from pool.map(lambda file: fault(*file), files)

    def evict(self, digests: Iterable[Digest], *, are_damaged: bool = False) -> None:
        """Removes files from the pool; a step that needs one makes it again.

        That they are gone on purpose is noted first, and what is there again is no more.

        Raises:
            StoreError: the store cannot be written to.
        """
        going = set(digests)
        if not going:
            return
        with guarded(self.root):
            self._note_absent(going, are_going=True)
            for digest in going:
                drop(self.object(digest), is_damaged=are_damaged)

    def _note_absent(self, digests: set[Digest], *, are_going: bool = False) -> None:
        """Adds digests to those that nobody misses: of files that are going, or are not here."""
        with self.locked("gone", "note files"):
            absent.note(self.root / "gone.json", digests, lambda d: self.object(d).exists(),
                        are_going=are_going)

    def evicted(self) -> set[Digest]:
        """Returns the digests of files that were removed on purpose, or never were here; StoreError
        if that cannot be read now."""
        return absent.read(self.root / "gone.json")

    def verify(self, record: Record, path: str = "") -> None:
        """Reads the files of the artifact, or of one path of it; drops those that are damaged.

        Raises:
            MissingArtifact, CorruptArtifact: names the files.
        """
        where = f"{record.step} ({record.key[:8]}): "
        part = record.part(path)
        read = self.faults((self.object(entry.digest), entry.digest) for entry in part)
        found = {e.path: what for e, what in zip(part, read, strict=True) if what}
        damaged = [entry for entry in part if found.get(entry.path) == DAMAGED]
        self._damage |= {e.digest: flaw(self.object(e.digest), e) for e in damaged}
        self.evict([entry.digest for entry in damaged], are_damaged=True)
        if damaged:
            raise CorruptArtifact(
                where + "; ".join(f"{e.path} {self._flaw(e)}" for e in damaged)
                + "; it was dropped",
                hint="build again to make it again",
            )
        if found:
            raise MissingArtifact(where + "; ".join(f"{n} is not in the store" for n in found))

    def checkout(self, record: Record, target: Path, path: str = "", other: str = "") -> Path:
        """Lays the artifact out at `target`, every byte of it read and found whole before.

        With `path`, only that part; a single file is laid out at `target` itself. `other` is that
        of `guarded`.

        Raises:
            MissingArtifact, CorruptArtifact: some of its content is not in the pool, or is not
            what it was; what is damaged was dropped.
            StoreError: the file system does not take it.
        """
        self.verify(record, path)
        with guarded(target, other):
            for entry in record.part(path):
                relative = entry.path[len(path):].lstrip("/")
                link_out(self.object(entry.digest), target / relative if relative else target)
        self.used(record)
        return target

    def is_laid_out(self, record: Record, target: Path) -> bool:
        """Whether `target` holds exactly the files of the artifact.

        Large files are not read, but a bundle's manifest is, which has their digests.

        Raises:
            StoreError: one cannot be read now, which says nothing of it.
        """
        wanted = {normalized(entry.path): entry for entry in record.tree}
        found = {normalized(path.relative_to(target).as_posix()): path for path in files(target)}
        return wanted.keys() == found.keys() and all(
            is_laid_out(path, wanted[name]) for name, path in found.items()
        )

    # work

    @contextlib.contextmanager
    def in_use(self, what: str) -> Iterator[None]:
        """Keeps content from being removed while something that was found is relied on."""
        with guarded(self.root), locked(self._lock("store"), what, is_shared=True):
            yield

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Waits until no build runs, and keeps builds waiting."""
        with guarded(self.root), locked(self._lock("store"), what):
            yield

    @contextlib.contextmanager
    def locked(self, key: str, what: str = "") -> Iterator[None]:
        """Holds the lock of `key`; waits for its holder, and says which it is."""
        with locked(self._lock(key), what or key[:8]):
            yield

    def _lock(self, name: str) -> Path:
        return self.root / "locks" / name

    @contextlib.contextmanager
    def workspace(self, key: str) -> Iterator[Path]:
        """An empty folder to work in, gone afterwards. Hold the lock of `key`.

        What killed runs left behind goes too.
        """
        parent = self.root / "work"
        self.sweep_work(key)
        with guarded(self.root):
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{key}-"))
        try:
            yield folder
        finally:
            sweep(folder)

    def sweep(self) -> None:
        """Removes what kills left behind, and the locks of steps. Be alone in the store."""
        self.sweep_work()
        locks = (path for path in entries(self.root / "locks") if is_key(path.name))
        for left in (*self.root.rglob(".new-*"), *locks):
            sweep(left)

    def sweep_work(self, held: str = "") -> None:
        """Removes the workspaces that nobody works in: their locks are free, or `held` by us."""
        with guarded(self.root):
            for left in entries(self.root / "work"):
                key = left.name.rpartition("-")[0]  # or `export-<key>`
                if is_key(key.rpartition("-")[2]) and (key == held or not is_held(self._lock(key))):
                    sweep(left)
