"""Whether a file is what its entry says."""

from __future__ import annotations

import errno
from pathlib import Path

from sdbuild.digest import digest_file
from sdbuild.store.disk import TAKEN_NS, file_error
from sdbuild.store.record import Entry

MISSING = "missing"
DAMAGED = "damaged"

LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO)
"""What a disk answers that has not, or no more, what was written; others may answer it again."""
_SMALL_BYTES = 1 << 20
"""A file of this size is read in no time."""


def fault(path: Path, digest: str) -> str:
    """What a read shows to be wrong with a file: MISSING, DAMAGED or nothing.

    Raises:
        StoreError: it cannot be read now, which says nothing of it.
    """
    try:
        return "" if digest_file(path) == digest else DAMAGED
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        if error.errno not in LOST:
            raise file_error(error, path) from error
        return DAMAGED


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, as hard links do."""
    try:
        return path.samefile(other)
    except OSError:  # one of them is gone
        return False


def is_whole(path: Path, entry: Entry) -> bool:
    """Whether a file is that of the entry; it is read only if it was written to since."""
    try:
        status = path.stat()
        if status.st_size != entry.size_bytes:
            return False
        return status.st_mtime_ns == TAKEN_NS or digest_file(path) == entry.digest
    except OSError:
        return False


def is_laid_out(path: Path, entry: Entry) -> bool:
    """Whether a file outside the pool is that of the entry; small ones are always read.

    Files of other artifacts have the same times, and often the same sizes.
    """
    try:
        if entry.size_bytes <= _SMALL_BYTES:
            return digest_file(path) == entry.digest
    except OSError:
        return False
    return is_whole(path, entry)
