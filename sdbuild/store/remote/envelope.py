"""Records on their way between machines: written, signed, and checked before they are believed.

A record in a shared store is that of a store, each file of its tree with its SHA-256 beside it,
for the digests that name files here are quick and not made against forgery:

    {"record": {…, "tree": [[path, digest, bytes, sha256], …]}, "mac": hmac-sha256 or null}
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sdbuild.base.digest import Key, canonical
from sdbuild.base.filenames import collision
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.store import Entry, Record
from sdbuild.store import key as key_of
from sdbuild.store.record import stays_inside

LARGEST_BYTES = 2 << 20
_LARGEST_FILE = 1 << 40
_MOST_FILES = 10_000

_HEX = {32: re.compile(r"[0-9a-f]{32}"), 64: re.compile(r"[0-9a-f]{64}")}
_STEP = re.compile(r"[a-z0-9_]+(:[a-z0-9_]+)?")
_CONTROL = re.compile(r"\\u00[01][0-9a-f]|\\u00[89][0-9a-f]|\x7f|\\[bf]")
"""Control characters as JSON escapes them: printed, they would steer a terminal."""


class Unsound(Exception):
    """A record is not what it must be; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A record, and the SHA-256 of each of its files by their digests."""

    record: Record
    sha256: Mapping[str, str]


def encoded(shared: Shared, secret: str) -> bytes:
    """Returns the bytes of a record, signed if there is a secret."""
    record = asdict(shared.record)
    del record["origin"]  # each reader finds out for itself
    record |= {"tree": [
        [e.path, e.digest, e.size_bytes, shared.sha256[e.digest]] for e in shared.record.tree
    ]}
    return _text({"record": record, "mac": _mac(record, secret) if secret else None})


def decoded(content: bytes, key: Key, ingredients: Mapping[str, Any], secret: str) -> Shared:
    """Returns the record in these bytes.

    Args:
        key, ingredients: of the step that it must be of.
        secret: the key that it must be signed with, if there is one.

    Raises:
        Unsound: it is not what it must be.
    """
    try:
        found = json_object(content, key, Malformed, most_bytes=LARGEST_BYTES,
                            has_infinities=True, has_controls=True)
        record, mac = found["record"], found["mac"]
        if secret and not hmac.compare_digest(str(mac), _mac(record, secret)):
            raise Unsound("it is not signed with this SDBUILD_REMOTE_SECRET")
        return _checked(record, key, ingredients)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unsound("it is damaged") from error


def _mac(record: object, secret: str) -> str:
    return hmac.digest(secret.encode(), b"sdbuild record 1\n" + _text(record), "sha256").hex()


def _text(value: object) -> bytes:
    """As `canonical`, with infinities, which facts may have (the SNR of what lost nothing)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _checked(found: dict[str, Any], key: Key, ingredients: Mapping[str, Any]) -> Shared:
    _require(found["key"] == key, "it is of another key")
    _require(canonical(found["ingredients"]) == canonical(ingredients), "it is of another step")
    _require(key_of(found["ingredients"]) == key, "its key is not that of its ingredients")
    _require("origin" not in found, "it says itself how it was vouched for")
    rows = found.pop("tree")
    record = Record(**found, tree=tuple(Entry(*row[:3]) for row in rows))
    _require(_STEP.fullmatch(record.step) is not None, "its step has no such name")
    _require(all(isinstance(t, str) for t in (record.made_at, record.host)), "it is damaged")
    _require(_is_count(record.peak_bytes) and _is_time(record.seconds), "it is damaged")
    _require(isinstance(record.facts, dict), "it is damaged")
    _require(not _CONTROL.search(json.dumps(found)), "it holds control characters")
    _check_tree(record.tree)
    sha256 = {digest: sha for _, digest, _, sha in rows}
    _require(all(_HEX[64].fullmatch(sha) for sha in sha256.values()), "it is damaged")
    _require(all(sha256[digest] == sha for _, digest, _, sha in rows), "it contradicts itself")
    return Shared(record=record, sha256=sha256)


def _check_tree(tree: tuple[Entry, ...]) -> None:
    """Makes sure that files stay where they are put, and have names and sizes that files have."""
    _require(0 < len(tree) <= _MOST_FILES, "it has no files, or far too many")
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    for entry in tree:
        parts = entry.path.split("/")
        _require(stays_inside(entry.path), "a path leads elsewhere")
        _require(_HEX[32].fullmatch(entry.digest) is not None, "it is damaged")
        _require(_is_count(entry.size_bytes) and entry.size_bytes <= _LARGEST_FILE,
                 "a file has no such size")
        _require(sizes.setdefault(entry.digest, entry.size_bytes) == entry.size_bytes,
                 "it contradicts itself")
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
    paths = [entry.path for entry in tree]
    _require(not collision(paths) and not folders & set(paths), "two files collide")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_time(value: object) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and math.isfinite(value) and value >= 0)


def _require(is_true: bool, otherwise: str) -> None:
    if not is_true:
        raise Unsound(otherwise)
