"""The nouns of the store: an artifact's files, and what is known of it, as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard

from sdbuild.base.digest import Digest, Key, digest
from sdbuild.base.parsing import Malformed, json_object


def key(ingredients: Mapping[str, Any]) -> Key:
    """Returns the key of an artifact that is made of these ingredients."""
    return Key(digest("step", ingredients))

_LARGEST_BYTES = 64 << 20


UNSIGNED = "unsigned"
"""The `origin` of a record from a shared store that was read without a secret."""
SIGNED = "signed"
"""The `origin` of a record from a shared store that bore this machine's signature."""
SHIPPED = "shipped"
"""The `origin` of a record that came with sdbuild."""


_DIGEST = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[0-9a-z]{32}")


def is_digest(text: str) -> TypeGuard[Digest]:
    """Whether it is the name of a file of the pool."""
    return _DIGEST.fullmatch(text) is not None


def is_key(text: str) -> TypeGuard[Key]:
    """Whether a record may have this name."""
    return _KEY.fullmatch(text) is not None


def stays_inside(path: str) -> bool:
    """Whether a path is a plain one below the folder that it is laid out in."""
    parts = path.split("/")
    return (
        all(p not in ("", ".", "..") and len(p.encode("utf-8", "replace")) <= 255 for p in parts)
        and path.isprintable() and not set(path) & set("\\:")
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an artifact; `path` is relative, with `/`."""

    path: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The record of an artifact: what it was made of, what came out, what it cost.

    `origin`: its way into this store: empty if it was made here, UNSIGNED or SIGNED if it is
    from a shared store, SHIPPED if it came with sdbuild. It is no part of what the artifact is.

    Units:
        seconds: wall clock; peak_bytes: the most anonymous memory that its process held.
    """

    key: Key
    step: str
    ingredients: Mapping[str, Any]
    tree: tuple[Entry, ...]
    seconds: float
    peak_bytes: int
    made_at: str
    host: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: str = field(default="", compare=False)

    def part(self, path: str) -> tuple[Entry, ...]:
        """Returns the files at or below `path`; all of them if it is empty."""
        if not path:
            return self.tree
        return tuple(e for e in self.tree if e.path == path or e.path.startswith(f"{path}/"))

    def digest(self, path: str = "") -> Digest:
        """Returns the digest of the artifact's content, or of one path of it."""
        return tree_digest(self.part(path))

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(entry.size_bytes for entry in self.tree)


def tree_digest(tree: tuple[Entry, ...]) -> Digest:
    """Returns the digest of a tree: of the names and digests of its files."""
    return digest("tree", [[entry.path, entry.digest] for entry in tree])


def encoded(record: Record) -> bytes:
    """Returns the bytes of a record's file; its tree as rows of path, digest and size."""
    rows = [[e.path, e.digest, e.size_bytes] for e in record.tree]
    found = asdict(record) | {"tree": rows}
    if not record.origin:
        del found["origin"]
    return json.dumps(found, indent=1).encode()


def decoded(content: bytes, key: Key) -> Record:
    """Returns the record of `key` in a file's bytes.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: there is none.
    """
    found = record_of(json_object(content, key, Malformed, most_bytes=_LARGEST_BYTES,
                                  has_infinities=True, has_controls=True))
    if found.key != key:
        raise ValueError(f"not a record of {key}")
    return found


def record_of(fields: Mapping[str, Any]) -> Record:
    """Returns the record in the fields of a file.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: there is none.
    """
    tree = tuple(Entry(*row) for row in fields["tree"])
    record = Record(**{**fields, "tree": tree})
    if not _is_sound(record):
        raise ValueError(f"not a record: {record.key}")
    return record


_TEXT = ("key", "step", "made_at", "host")
_NUMBERS = ("seconds", "peak_bytes")
_TABLES = ("params", "inputs", "source", "tools")


def _is_sound(record: Record) -> bool:
    """Whether everything is of the kind that its readers take for granted."""
    return (
        all(isinstance(getattr(record, name), str) for name in _TEXT)
        and all(type(getattr(record, name)) in (int, float) for name in _NUMBERS)
        and record.origin in ("", UNSIGNED, SIGNED, SHIPPED)
        and isinstance(record.facts, dict) and isinstance(record.ingredients, dict)
        and all(isinstance(record.ingredients.get(name, {}), dict) for name in _TABLES)
        and all(isinstance(entry.path, str) and stays_inside(entry.path)
                and isinstance(entry.digest, str) and is_digest(entry.digest)
                and type(entry.size_bytes) is int for entry in record.tree)
    )
