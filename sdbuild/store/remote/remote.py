"""A store that machines share: records and content at a URL, laid out as in the store itself.

A record is looked up when the store has none, content is fetched when it is needed, and what a step
made is uploaded after it. Nothing that is there is believed before it is checked (`envelope.py`),
nothing enters the store before its digests are right, and no failure ends a build: what cannot be
fetched is made.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdbuild.base.digest import Digest, Key, digest_file
from sdbuild.base.errors import CorruptArtifact, RecipeError, RemoteFailed
from sdbuild.base.units import size
from sdbuild.store import SIGNED, UNSIGNED, Entry, Record, Store
from sdbuild.store.remote.envelope import LARGEST_BYTES, Shared, Unsound, decoded, encoded
from sdbuild.store.remote.marker import check_unmarked, is_local, is_marked, mark
from sdbuild.store.remote.rate import SIZEABLE_BYTES
from sdbuild.store.remote.transport import TIMEOUT_S, TooLarge, Transport

LOG = logging.getLogger(__name__)

SECRET = "SDBUILD_REMOTE_SECRET"


class Remote:
    """The shared store at `url`, for the builds in `store`.

    With a secret in the environment, records are signed with it, and no other is believed.

    Raises:
        RecipeError, ToolMissing: the URL cannot be used, or leads into the store itself; the
            secret is empty.
    """

    def __init__(self, url: str, store: Store, timeout_s: float = TIMEOUT_S) -> None:
        self._there = Transport(url, timeout_s)
        self._store = store
        self._secret = secret()
        _check_apart(self._there.folder, store)
        self._is_marked = self._is_checked = False
        self._found: dict[str, Shared | None] = {}
        self._damaged: set[str] = set()
        self._may_read = self._may_write = True
        self._reported: dict[str, object] = {}

    def __repr__(self) -> str:
        return f"Remote({self._there})"

    def check(self) -> None:
        """Makes sure that the place is a shared store or may become one. Ask before work starts;
        nothing is written there.

        A place that does not answer is reported, and not used.

        Raises:
            RecipeError: something else is there.
        """
        if self._is_checked or not self._may_write:
            return
        try:
            self._is_marked = is_marked(self._there)
        except RemoteFailed as error:
            self._fail(error)
            self._may_write = False
            return
        try:
            if not self._is_marked:
                check_unmarked(self._there)
            self._is_checked = True
        except RemoteFailed as error:  # some may read there and not list
            self._leave_alone(f"it is not known to be a shared store: {error.message}")

    def is_marked(self) -> bool:
        """Returns True if the place has the marker of a shared store.

        Raises:
            RecipeError: something else is there.
        """
        self.check()
        return self._is_marked

    def claim(self) -> None:
        """Marks an empty place, as the first push does, where this machine may write.

        Raises:
            RecipeError: something else is there.
        """
        self.check()
        if self._may_write:
            try:
                self._mark()
            except RemoteFailed as error:
                self._fail(error, is_write=True)

    def _mark(self) -> None:
        if not self._is_marked:
            mark(self._there)
            self._is_marked = True

    def find(self, key: Key, ingredients: Mapping[str, Any]) -> Record | None:
        """Returns the record of a step, taken into the store; None if it is not there, or not
        sound.

        Raises:
            StoreError: the store cannot be written to.
        """
        found = self._lookup(key, ingredients)
        if found is None:
            return None
        record = replace(found.record, origin=SIGNED if self._secret else UNSIGNED)
        self._store.add_remote_record(record)
        return record

    def fetch(self, record: Record, path: str = "") -> bool:
        """Takes what the store lacks of an artifact, or of one path of it, into the store.

        Says whether the store has it now. Hold the lock of the record's key.

        Raises:
            StoreError: the store cannot be written to.
        """
        shared = self._lookup(record.key, record.ingredients)
        if shared is None or shared.record.tree != record.tree:
            return False
        missing = self._store.missing(record, path)
        if missing and not self._may_read:
            return False
        count = sum(entry.size_bytes for entry in missing)
        try:
            with self._store.workspace(record.key) as work:
                if count > shutil.disk_usage(work).free:
                    raise RemoteFailed(f"{record.step} is {size(count)}, more than is free here")
                for entry in missing:
                    self._fetch_file(entry, shared.sha256[entry.digest], work / "fetched")
        except CorruptArtifact as error:
            self._tell(f"{record.step} ({record.key[:8]}): {error.message}; it is made here")
            return False
        except RemoteFailed as error:
            self._fail(error)
            return False
        if missing:
            LOG.info("   %-22sfetched  %s", record.step, size(count))
        return True

    @property
    def bytes_s(self) -> float:
        """Bytes a second that this machine sends there, measured or else guessed."""
        return self._there.rate.bytes_s

    def push(self, record: Record, *, is_whole: bool = True) -> bool:
        """Uploads an artifact: its files first, so that a record never promises too much.

        Files that are there are not sent again. Says whether all of it is there now. Unless it
        `is_whole`, the record goes there with small files alone: others know then what the step
        made, and who needs a file that is not there makes it again.
        """
        self._check_softly()
        held = self._lookup(record.key, record.ingredients) if self._may_write else None
        if not self._may_write:  # the look-up may just have found out
            return False
        sha256 = dict(held.sha256) if held and held.record.tree == record.tree else {}
        is_known = bool(sha256)
        try:
            self._mark()
            for entry in {entry.digest: entry for entry in record.tree}.values():
                if entry.digest not in sha256:
                    sha256[entry.digest] = self._sha256_of(entry)
                if is_whole or entry.size_bytes < SIZEABLE_BYTES:
                    self._push_file(entry)
            if not is_known and self._may_write:  # the look-up may just have failed
                self._push_record(Shared(record=record, sha256=sha256))
            return self._may_write and is_whole
        except (CorruptArtifact, OSError) as error:  # the next build makes it anew
            self._tell(f"{record.step} ({record.key[:8]}) is not uploaded: {error}")
        except RemoteFailed as error:
            self._fail(error, is_write=True)
        return False

    def _check_softly(self) -> None:
        """As `check`; what else is there is reported and left alone, for the build goes on."""
        try:
            self.check()
        except RecipeError as error:
            self._leave_alone(error.message)

    def _leave_alone(self, why: str) -> None:
        self._may_write = False
        self._tell(f"{why}; nothing is uploaded")

    def _lookup(self, key: Key, ingredients: Mapping[str, Any]) -> Shared | None:
        """Returns what is there for a key, asked once."""
        if key not in self._found:
            if not self._may_read:
                return None
            self._found[key] = self._asked(key, ingredients)
        return self._found[key]

    def _asked(self, key: Key, ingredients: Mapping[str, Any]) -> Shared | None:
        name = _record_name(key)
        try:
            with tempfile.TemporaryDirectory(prefix="sdbuild-") as folder:
                path = Path(folder) / key
                if not self._there.read(name, path, LARGEST_BYTES):
                    return None
                content = path.read_bytes()
            if is_local(content):
                self._leave_alone(f"{name} is the record of a local store")
                return None
            return decoded(content, key, ingredients, self._secret)
        except (Unsound, TooLarge) as error:
            self._tell(f"{name} is not used: {error}")
        except RemoteFailed as error:
            self._fail(error)
        return None

    def _fetch_file(self, entry: Entry, sha256: str, target: Path) -> None:
        """Raises CorruptArtifact if what is there is not what the record promises."""
        name = _object_name(entry.digest)
        try:
            if not self._there.read(name, target, entry.size_bytes):
                raise CorruptArtifact(f"{entry.path} is not there")
            is_whole = _sha256(target) == sha256
        except TooLarge:
            is_whole = False
        if not is_whole:
            self._damaged.add(name)
            raise CorruptArtifact(f"{entry.path} is damaged there")
        self._store.accept(target, entry)

    def _push_file(self, entry: Entry) -> None:
        name = _object_name(entry.digest)
        if name in self._damaged or self._there.size(name) != entry.size_bytes:
            self._there.write(self._store.object(entry.digest), name)
            self._damaged.discard(name)

    def _push_record(self, shared: Shared) -> None:
        with tempfile.TemporaryDirectory(prefix="sdbuild-") as folder:
            path = Path(folder) / "record"
            path.write_bytes(encoded(shared, self._secret))
            self._there.write(path, _record_name(shared.record.key))
        self._found[shared.record.key] = shared

    def _sha256_of(self, entry: Entry) -> str:
        path = self._store.object(entry.digest)
        if digest_file(path) != entry.digest:
            raise CorruptArtifact(f"{entry.path} is damaged here")
        return _sha256(path)

    def _fail(self, error: RemoteFailed, *, is_write: bool = False) -> None:
        """Says why there is no more of it, and goes on without; one who may not write may read."""
        if error.is_refused and is_write:
            self._may_write = False
            self._tell(f"{error.message}; nothing is uploaded")
        elif error.is_refused:
            self._tell(f"{error.message}; what cannot be read there is made here", "reading")
        else:
            self._may_read = self._may_write = False
            self._tell(f"{error.message}; going on without it")

    def _tell(self, text: str, matter: str = "") -> None:
        """Says it, once for each text or matter: drivers may word the same anew for each file."""
        mine = object()  # of several threads that would say it, one does
        if self._reported.setdefault(matter or text, mine) is mine:
            LOG.warning("remote %s: %s", self._there, text)


def remote_at(url: str | None, store: Store) -> Remote | None:
    """Returns the shared store at a URL, if there is one.

    Raises:
        RecipeError, ToolMissing: the URL cannot be used.
    """
    return Remote(url, store) if url is not None else None


def secret() -> str:
    """Returns the secret that shared records are signed with; empty if there is none.

    Raises:
        RecipeError: it is there and empty, as a CI job gets one that it may not see.
    """
    found = os.environ.get(SECRET)
    if found is not None and not found.strip():
        raise RecipeError(
            f"{SECRET} is empty, expected a secret: without one, everyone who can write to a "
            "shared store is trusted",
            hint=f"set it, or unset {SECRET} to trust the shared store itself",
        )
    return found or ""


def _check_apart(folder: Path | None, store: Store) -> None:
    """Raises RecipeError if a folder is that of the store, or within it."""
    if folder is None:
        return
    place, root = folder.resolve(), store.root.resolve()
    if any(at == root or (at.exists() and root.exists() and at.samefile(root))
           for at in (place, *place.parents)):
        raise RecipeError(
            f"remote={folder}: is in the local store {store.root}, whose records would be "
            "overwritten",
            hint="use another folder: a shared store is separate from local ones",
        )


def _record_name(key: Key) -> str:
    return f"records/{key[:2]}/{key}.json"


def _object_name(digest: Digest) -> str:
    return f"objects/{digest[:2]}/{digest}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
