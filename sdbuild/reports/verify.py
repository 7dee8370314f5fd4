"""Every file of a store and of its bundles read again, and what damage means for what was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import Digest
from sdbuild.base.errors import StoreError
from sdbuild.base.units import counted, size
from sdbuild.reports.lineage import Lineage
from sdbuild.store import Entry, Record, Store
from sdbuild.store.disk import touch
from sdbuild.store.integrity import DAMAGED, MISSING, fault, is_same
from sdbuild.store.roots import Root, roots

Progress = Callable[[int, int], None]
"""Told after each file: bytes that are read, and bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that is damaged or missing.

    `used_as`: its path in each artifact that has it; `downstream`: the steps that were made from
    those, and so may hold what was read from it; `bundles`: those in their places that hold it
    damaged.
    """

    digest: Digest
    fault: str
    size_bytes: int
    used_as: tuple[str, ...]
    downstream: tuple[str, ...]
    bundles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The result of verifying a store. `is_mended`: damage was deleted, to be made again."""

    files: int
    size_bytes: int
    without_content: int
    faults: tuple[Fault, ...]
    bundles: tuple[str, ...]
    records: tuple[str, ...]
    is_mended: bool

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.faults or self.bundles or self.records)


def verify(store: Store, progress: Progress = lambda done, total: None) -> Verified:
    """Reads everything; drops what is damaged, so that the next build makes it again."""
    with store.in_use("verify"):
        lineage = Lineage(store.records())
        entries, evicted = _entries(store, lineage), store.evicted()
        absent = {d for d in entries if d in evicted and not store.object(d).exists()}
        wanted = sorted((e for d, e in entries.items() if d not in absent),
                        key=lambda entry: -entry.size_bytes)
        placed = list(roots(store))
        copies = list(_copies(placed, store))
        found = _read(store, [*((store.object(e.digest), e) for e in wanted), *copies], progress)
        damaged = _damaged_in(placed, store, found)
        faults = tuple(
            _fault(entry, found[path], lineage, damaged)
            for entry in wanted if found.get(path := store.object(entry.digest))
        )
        unreadable = tuple(store.unreadable())
        is_mended = _mend(store, faults, damaged)
    return Verified(
        files=len(wanted),
        size_bytes=sum(entry.size_bytes for entry in wanted),
        without_content=sum(
            any(e.digest in absent for e in record.tree) for record in lineage.records.values()
        ),
        faults=faults,
        bundles=tuple(path for paths in damaged.values() for path in paths),
        records=tuple(path.name for path in unreadable),
        is_mended=is_mended,
    )


def _entries(store: Store, lineage: Lineage) -> dict[Digest, Entry]:
    """Returns every file that is known, and what lies in the pool without a record."""
    found = {e.digest: e for record in lineage.records.values() for e in record.tree}
    for path in store.objects():
        digest = Digest(path.name)
        if digest not in found:
            found[digest] = Entry("", digest, path.stat().st_size)
    return found


def _copies(placed: Iterable[Root], store: Store) -> Iterator[tuple[Path, Entry]]:
    """Yields the files of bundles in their places that are not the pool's own."""
    for root in placed:
        for entry in root.record.tree:
            path, pooled = root.folder / entry.path, store.object(entry.digest)
            if not is_same(path, pooled):
                yield path, entry


def _read(
    store: Store, files: Sequence[tuple[Path, Entry]], progress: Progress
) -> dict[Path, str]:
    """Returns the faults of the files."""
    done, total, found = 0, sum(entry.size_bytes for _, entry in files), {}
    read = store.faults((path, entry.digest) for path, entry in files)
    for (path, entry), what in zip(files, read, strict=True):
        done += entry.size_bytes
        progress(done, total)
        if what:
            found[path] = what
    return found


def _damaged_in(
    placed: Iterable[Root], store: Store, found: Mapping[Path, str]
) -> dict[str, list[str]]:
    """Returns the files of bundles in their places that are not what they were, by their
    digests."""
    damaged: dict[str, list[str]] = {}
    for root in placed:
        for entry in root.record.tree:
            path, pooled = root.folder / entry.path, store.object(entry.digest)
            if path in found or (pooled in found and is_same(path, pooled)):
                damaged.setdefault(entry.digest, []).append(str(path))
    return damaged


def _fault(
    entry: Entry, what: str, lineage: Lineage, damaged: Mapping[str, list[str]]
) -> Fault:
    holders = [r for r in lineage.records.values() if any(e.digest == entry.digest for e in r.tree)]
    keys = {record.key for record in holders}
    after = sorted(lineage.after(keys) - keys, key=lambda key: len(lineage.before([key])))
    return Fault(
        digest=entry.digest,
        fault=what,
        size_bytes=entry.size_bytes,
        used_as=tuple(
            f"{_named(r)}: {e.path}" for r in holders for e in r.tree if e.digest == entry.digest
        ),
        downstream=tuple(_named(lineage.records[key]) for key in after),
        bundles=tuple(damaged.get(entry.digest, ())),
    )


def _named(record: Record) -> str:
    return f"{record.step} ({record.key[:8]})"


def _mend(store: Store, faults: Iterable[Fault], damaged: Mapping[str, list[str]]) -> bool:
    """Drops what is damaged, and has the next build look at damaged bundles."""
    for paths in damaged.values():
        for path in paths:
            touch(Path(path))
    try:
        # Read once more: a build may have made it anew meanwhile.
        still = [f.digest for f in faults if fault(store.object(f.digest), f.digest)]
        store.evict(still, are_damaged=True)
        for record in store.unreadable():
            store.drop_record(record)
    except StoreError:
        return False
    return True


def format_verified(found: Verified) -> str:
    """Returns the result as text."""
    lines = []
    for each in found.faults:
        lines.append(f"{each.fault}: {each.digest} ({size(each.size_bytes)})")
        lines += [f"    in {use}" for use in each.used_as or ("no record",)]
        if each.downstream:
            lines.append(f"    from which came {', '.join(each.downstream)}")
        lines += [f"    in the bundle {path}" for path in each.bundles]
    pooled = {path for each in found.faults for path in each.bundles}
    lines += [f"damaged or missing in a bundle: {path}"
              for path in found.bundles if path not in pooled]
    lines += [f"damaged: the record {name}" for name in found.records]
    lines.append(f"{counted(found.files, 'file')} of the store, {size(found.size_bytes)} read: "
                 f"{_sum(found)}")
    if found.without_content:
        lines.append(f"not here, as virtual, collected, dropped, or only in a shared store: "
                     f"{counted(found.without_content, 'artifact')}; a build that needs one "
                     "fetches it or makes it again")
    return "\n".join([*lines, *_advice(found)])


def _sum(found: Verified) -> str:
    """Returns the numbers of faults in the store itself."""
    counts = Counter(each.fault for each in found.faults)
    parts = [f"{counts[what]} {what}" for what in sorted(counts)]
    if found.records:
        parts.append(f"{len(found.records)} of its records damaged")
    return ", ".join(parts) or "all intact"


def _advice(found: Verified) -> Iterator[str]:
    """Yields what was done about the faults, and what remains to do."""
    if (found.faults or found.records) and not found.is_mended:
        yield "nothing was deleted: the store cannot be written to"
        return
    kinds = {each.fault for each in found.faults}
    if DAMAGED in kinds:
        yield "what is damaged in the store was deleted; a build that needs it makes it again"
    if MISSING in kinds:
        yield "what is missing in the store is made again by a build that needs it"
    if found.records:
        yield "the damaged records were deleted; a build that needs their steps runs them again"
    if found.bundles:
        yield ("the damaged bundles stay until `sdbuild build`, with the same settings, installs "
               "them again")
