"""Disk usage of a store, by bundle, component and stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import Digest
from sdbuild.base.units import size
from sdbuild.reports.lineage import Lineage, component, stage, variant
from sdbuild.store import Record, Store
from sdbuild.store.disk import cloned_bytes
from sdbuild.store.integrity import is_same
from sdbuild.store.roots import Root, roots

SEVERAL = "shared by several"
NOTHING = "no record"
"""Content whose records were forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file as the disk has it.

    Units:
        size_bytes: its length; disk_bytes: its blocks, less than that where it has holes;
        shared_bytes: those of them that other files have too, as links or clones, so that
        removing it frees nothing yet.
    """

    digest: Digest
    size_bytes: int
    disk_bytes: int
    shared_bytes: int
    changed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The bytes on the disk that belong to one name alone, and those shared with others."""

    name: str
    own_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleUsage:
    """A bundle in its place: of its bytes those that are the pool's own files, those that share
    blocks with others (as far as the system tells), and the rest."""

    folder: str
    variant: str
    linked_bytes: int
    cloned_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The disk usage of a store. In each table every byte stands once: the rows make up the
    pool."""

    tables: Mapping[str, tuple[Share, ...]]
    files: int
    size_bytes: int
    disk_bytes: int
    shared_bytes: int
    records_bytes: int
    work_bytes: int
    bundles: tuple[BundleUsage, ...]


def pool(store: Store) -> dict[Digest, File]:
    """Returns the files of the pool by their digests."""
    found: dict[Digest, File] = {}
    for path in store.objects():
        try:
            status = path.stat()
        except OSError:  # it has just gone
            continue
        on_disk = status.st_blocks * 512
        digest = Digest(path.name)
        found[digest] = File(
            digest=digest, size_bytes=status.st_size, disk_bytes=on_disk,
            shared_bytes=on_disk if status.st_nlink > 1 else min(on_disk, cloned_bytes(path)),
            changed_at=status.st_ctime,
        )
    return found


def usage(store: Store) -> Usage:
    """Returns the disk usage of a store."""
    files, lineage = pool(store), Lineage(store.records())
    return Usage(
        tables=tables(files.values(), lineage),
        files=len(files),
        size_bytes=sum(file.size_bytes for file in files.values()),
        disk_bytes=sum(file.disk_bytes for file in files.values()),
        shared_bytes=sum(file.shared_bytes for file in files.values()),
        records_bytes=_disk_bytes(store.root / "records"),
        work_bytes=_disk_bytes(store.root / "work"),
        bundles=tuple(_place(store, root) for root in roots(store)),
    )


def tables(files: Iterable[File], lineage: Lineage) -> dict[str, tuple[Share, ...]]:
    """Files distinguished by the variants, components and stages that they belong to."""
    files, variants = list(files), lineage.variants()
    users: dict[str, list[Record]] = {}
    for record in lineage.records.values():
        for entry in record.tree:
            users.setdefault(entry.digest, []).append(record)
    kinds = {
        "variant": lambda r: variants[r.key], "component": lambda r: {component(r)},
        "stage": lambda r: {stage(r)},
    }
    return {
        kind: _shares(files, {
            f.digest: set().union(*(names(r) for r in users.get(f.digest, ()))) for f in files
        })
        for kind, names in kinds.items()
    }


def _shares(files: Iterable[File], names: Mapping[str, set[str]]) -> tuple[Share, ...]:
    """Returns each file under its one name, or under SEVERAL; the largest first, SEVERAL last."""
    own: dict[str, int] = {}
    shared: dict[str, int] = {}
    several = 0
    for file in files:
        found = names[file.digest] or {NOTHING}
        table = own if len(found) == 1 else shared
        several += 0 if len(found) == 1 else file.disk_bytes
        for name in found:
            table[name] = table.get(name, 0) + file.disk_bytes
    rows = [
        Share(name=name, own_bytes=own.get(name, 0), shared_bytes=shared.get(name, 0))
        for name in {*own, *shared}
    ]
    rows.sort(key=lambda row: (-row.own_bytes - row.shared_bytes, row.name))
    if several:
        rows.append(Share(name=SEVERAL, own_bytes=several, shared_bytes=0))
    return tuple(rows)


def _place(store: Store, root: Root) -> BundleUsage:
    linked = cloned = own = 0
    for entry in root.record.tree:
        path, pooled = root.folder / entry.path, store.object(entry.digest)
        try:
            on_disk = path.stat().st_blocks * 512
        except OSError:  # it was taken from the bundle
            continue
        is_linked = is_same(path, pooled)
        clones = 0 if is_linked else min(on_disk, cloned_bytes(path))
        linked += on_disk if is_linked else 0
        cloned += clones
        own += 0 if is_linked else on_disk - clones
    return BundleUsage(folder=str(root.folder), variant=variant(root.record), linked_bytes=linked,
                 cloned_bytes=cloned, own_bytes=own)


def _disk_bytes(folder: Path) -> int:
    """Returns the bytes on the disk below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def format_usage(found: Usage) -> str:
    """Usage as people read it."""
    lines = []
    for kind, rows in found.tables.items():
        lines += table(kind, rows)
    holes = found.size_bytes - found.disk_bytes
    lines.append(f"{found.files} files, {size(found.disk_bytes)} on the disk"
                 + (f" ({size(holes)} less than their lengths)" if holes > 0 else "")
                 + f"; records {size(found.records_bytes)}, work {size(found.work_bytes)}")
    if found.shared_bytes:
        lines.append(f"{size(found.shared_bytes)} of it is shared with other files, such as those "
                     "of bundles, and not counted twice")
    for place in found.bundles:
        shared = place.linked_bytes + place.cloned_bytes
        lines.append(f"{place.folder}: {size(shared)} shared with the store, "
                     f"{size(place.own_bytes)} of its own")
    return "\n".join(lines)


def table(kind: str, rows: Iterable[Share]) -> list[str]:
    """Returns a table of shares, and an empty line."""
    rows = list(rows)
    width = max([len(kind), *(len(row.name) for row in rows)]) + 2
    lines = [f"{kind:<{width}}{'alone':>10}{'shared':>10}"]
    lines += [
        f"{row.name:<{width}}{size(row.own_bytes):>10}"
        f"{size(row.shared_bytes) if row.shared_bytes else '':>10}".rstrip() for row in rows
    ]
    total = sum(row.own_bytes for row in rows)
    return [*lines, f"{'total':<{width}}{size(total):>10}", ""]
