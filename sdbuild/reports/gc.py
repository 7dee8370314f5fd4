"""Unreferenced content, and its deletion. Records stay.

What a bundle in its place holds stays always. What it was made from (its chain) goes only for
`max_bytes`, after everything else. The rest, which is loose, goes: all of it, or what was not used
since a time, or what was used longest ago. What is removed is made again when a build needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sdbuild.base.digest import Digest, Key
from sdbuild.reports.du import File, Share, pool, tables
from sdbuild.reports.lineage import Lineage
from sdbuild.store import Store
from sdbuild.store.roots import roots, sweep_roots


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """The content that would be deleted, and the rest.

    Units:
        freed_bytes: disk space free at once; later_bytes: disk space free as soon as the files
        that share blocks with those that go, such as a bundle's that was moved, are gone too.
    """

    files: tuple[File, ...]
    tables: Mapping[str, tuple[Share, ...]]
    freed_bytes: int
    later_bytes: int
    kept_bytes: int
    kept_for: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """An artifact that may go, or a file without a record; by when it was last used."""

    files: frozenset[Digest]
    used_at: float
    is_chain: bool


def garbage(
    store: Store, keep: Collection[Key] = (), *, max_bytes: int | None = None,
    before: float | None = None,
) -> Garbage:
    """Returns the content that can be deleted.

    Args:
        keep: keys of artifacts that count as bundles in their place.
        max_bytes: the largest size of the artifacts that stay.
        before: loose content that was used since then stays; in seconds since 1970.
    """
    files, lineage = pool(store), Lineage(store.records())
    placed = list(roots(store))
    rooted = {key for key in (*keep, *(r.record.key for r in placed)) if key in lineage.records}
    held = {entry.digest for key in rooted for entry in lineage.records[key].tree}
    items = sorted(_items(store, lineage, files, rooted), key=lambda i: (i.is_chain, i.used_at))
    going = [files[digest] for digest in _going(items, held, files, max_bytes, before)]
    freed = sum(file.disk_bytes - file.shared_bytes for file in going)
    total = sum(file.disk_bytes for file in going)
    return Garbage(
        files=tuple(going),
        tables=tables(going, lineage),
        freed_bytes=freed,
        later_bytes=total - freed,
        kept_bytes=sum(file.disk_bytes for file in files.values()) - total,
        kept_for=tuple(str(root.folder) for root in placed),
    )


def _items(
    store: Store, lineage: Lineage, files: Mapping[Digest, File], rooted: set[Key]
) -> Iterator[_Item]:
    chain = lineage.before(rooted)
    for key in lineage.measurements():
        if all(makers & chain for makers in lineage.inputs(key)):
            chain.add(key)
    known: set[Digest] = set()
    for key, record in lineage.records.items():
        content = frozenset(entry.digest for entry in record.tree if entry.digest in files)
        known |= content
        if key not in rooted:
            yield _Item(files=content, used_at=store.last_used(record), is_chain=key in chain)
    for digest in files.keys() - known:
        yield _Item(files=frozenset([digest]), used_at=files[digest].changed_at, is_chain=False)


def _going(
    items: Iterable[_Item], held: set[Digest], files: Mapping[Digest, File],
    max_bytes: int | None, before: float | None,
) -> list[Digest]:
    """Returns the digests of the files that go: those of which no item stays."""
    users = Counter(digest for item in items for digest in item.files)
    users.update(held)
    left = sum(file.disk_bytes for file in files.values())
    going = []
    for item in items:
        is_unused = item.used_at < before if before is not None else max_bytes is None
        is_too_much = max_bytes is not None and left > max_bytes
        if not is_too_much and (item.is_chain or not is_unused):
            continue
        for digest in sorted(item.files):
            users[digest] -= 1
            if not users[digest]:
                going.append(digest)
                left -= files[digest].disk_bytes
    return going


def collect(
    store: Store, keep: Collection[Key] = (), *, max_bytes: int | None = None,
    before: float | None = None,
) -> Garbage:
    """Removes what can go, and what kills left behind. No build runs meanwhile.

    Raises:
        StoreError: the store cannot be written to.
    """
    with store.alone("gc"):
        found = garbage(store, keep, max_bytes=max_bytes, before=before)
        store.evict(file.digest for file in found.files)
        store.sweep()
        sweep_roots(store)
    return found
