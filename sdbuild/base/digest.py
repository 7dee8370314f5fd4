"""Digests that identify content: canonical encoding, digests of values and of files.

xxh3-128 names what sdbuild makes itself; it is fast, and finding two contents with one digest is
easy. SHA-256 names what others made: sources and locks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from pathlib import Path
from typing import NewType

import xxhash

Digest = NewType("Digest", str)
"""Names content: a value, a file, or a tree of files; 32 hexadecimal digits of xxh3-128."""

Key = NewType("Key", str)
"""Names an artifact by what it is made of, before it is made; as long as a digest."""

_READ_BYTES = 1 << 20


def canonical(value: object) -> bytes:
    """Returns the one encoding of a JSON value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        TypeError, ValueError: the value is not JSON; a programming error, never a user's.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(tag: str, value: object) -> Digest:
    """Returns the digest of a JSON value; `tag` says what it is, so that two kinds never
    collide."""
    return Digest(xxhash.xxh3_128_hexdigest(canonical([tag, value])))


def digest_bytes(content: bytes) -> Digest:
    """Returns the digest of bytes, as a file of them has it."""
    return Digest(xxhash.xxh3_128_hexdigest(content))


def check_openable(path: Path) -> None:
    """Makes sure that opening a file does not wait, as a pipe's or a device's may forever.

    Raises:
        OSError: it is such a thing, or cannot be looked at.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # opening a folder fails by itself
        raise OSError(errno.ENODEV, "not a regular file", str(path))


def digest_file(path: Path) -> Digest:
    """Returns the digest of a file's bytes."""
    check_openable(path)
    hasher = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return Digest(hasher.hexdigest())


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, of which nobody can make two with the same."""
    check_openable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
