"""What identifies content: canonical encoding, digests of values and of files.

xxh3-128 names what sdbuild makes itself; it is fast, and finding two contents with one digest is
easy. SHA-256 names what others made: sources and locks.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import xxhash

_READ_BYTES = 1 << 20


def canonical(value: object) -> bytes:
    """The one encoding of a JSON value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        TypeError, ValueError: the value is not JSON; a programming error, never a user's.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(tag: str, value: object) -> str:
    """The digest of a JSON value; `tag` says what it is, so that two kinds never collide."""
    return xxhash.xxh3_128_hexdigest(canonical([tag, value]))


def digest_file(path: Path) -> str:
    """The digest of a file's bytes."""
    hasher = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, which whoever made the file cannot find twice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
