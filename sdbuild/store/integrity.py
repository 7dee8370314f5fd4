"""Verifies files against their entries."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from stat import S_ISREG

from sdbuild.base.digest import Digest, digest_file
from sdbuild.store.disk import TAKEN_NS, file_error
from sdbuild.store.record import Entry

MISSING = "missing"
DAMAGED = "damaged"

LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ENODEV)
"""Errors which mean that content is lost. After any other error, a later read may succeed."""
_SMALL_BYTES = 1 << 20
"""A file of this size is read in no time."""


def fault(path: Path, digest: Digest) -> str:
    """Returns what a read shows to be wrong with a file: MISSING, DAMAGED or nothing.

    Raises:
        StoreError: it cannot be read now, which says nothing of it.
    """
    try:
        is_right = not path.is_symlink() and digest_file(path) == digest
        return "" if is_right else DAMAGED
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        if error.errno not in LOST:
            raise file_error(error, path) from error
        return DAMAGED


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, as hard links do.

    Raises:
        StoreError: that is unknown now.
    """
    one, two = _status(path), _status(other)
    return one is not None and two is not None and os.path.samestat(one, two)


def is_intact(path: Path, entry: Entry) -> bool:
    """Whether a file is that of the entry; it is read only if it was written to since.

    Raises:
        StoreError: it cannot be read now, which says nothing of it.
    """
    status = _status(path)
    if status is None or not S_ISREG(status.st_mode) or status.st_size != entry.size_bytes:
        return False
    return status.st_mtime_ns == TAKEN_NS or not fault(path, entry.digest)


def flaw(path: Path, entry: Entry) -> str:
    """Returns what is wrong with the file of an entry that is not whole, in words."""
    status = _status(path)
    if status is None:
        return "is not in the store"
    if not S_ISREG(status.st_mode):
        return "is damaged: not a regular file"
    if status.st_size != entry.size_bytes:
        return f"is damaged: {status.st_size} bytes, expected {entry.size_bytes}"
    try:
        found = digest_file(path)[:8]
    except OSError as error:
        return f"is damaged: {error.strerror}"
    return f"is damaged: digest {found}, expected {entry.digest[:8]}"


def is_laid_out(path: Path, entry: Entry) -> bool:
    """Whether a file outside the pool is that of the entry; small ones are always read.

    Files of other artifacts have the same times, and often the same sizes.

    Raises:
        StoreError: it cannot be read now, which says nothing of it.
    """
    if entry.size_bytes <= _SMALL_BYTES:
        return not fault(path, entry.digest)
    return is_intact(path, entry)


def _status(path: Path) -> os.stat_result | None:
    """Returns what the system knows of a file, or None if it is lost."""
    try:
        return path.lstat()  # the store makes no links: somebody else's target may change
    except OSError as error:
        if error.errno not in LOST:
            raise file_error(error, path) from error
        return None
