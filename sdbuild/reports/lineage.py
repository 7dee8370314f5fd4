"""The lineage of artifacts and bundles, read from their records.

Inputs enter a key by the digest of their content. An artifact's makers are all records that gave
these bytes; there are several where two ways lead to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sdbuild.base.digest import Digest, Key
from sdbuild.store import Record

BUNDLES = ("bundle", "relink")
"""The kinds of steps whose artifact is a whole bundle."""
MEASUREMENTS = ("parity", "originals", "pictures")
"""The kinds of steps that enter no bundle: each belongs where all its inputs do, which may be those
before it."""
NO_BUNDLE = "no bundle"


class Lineage:
    """The records of a store, as a graph."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = {r.key: r for r in sorted(records, key=lambda r: (r.made_at, r.key))}
        makers: dict[Digest, list[Key]] = {}
        for record in self.records.values():
            if record.ingredients.get("kind") in BUNDLES:
                continue  # it holds what others made, under the same digests
            for found in _digests(record):
                makers.setdefault(found, []).append(record.key)
        self._makers = makers
        self._before = {
            record.key: [frozenset(makers[found])
                         for found in record.ingredients.get("inputs", {}).values()
                         if found in makers]
            for record in self.records.values()
        }
        self._after: dict[Key, set[Key]] = {key: set() for key in self.records}
        for key, before in self._before.items():
            for maker in frozenset().union(*before):
                self._after[maker].add(key)

    def makers(self, found: Digest | None) -> list[Record]:
        """Returns the records whose artifact, or a path of it, has this digest; none of None."""
        return [self.records[key] for key in self._makers.get(found, ())] if found else []

    def inputs(self, key: Key) -> list[frozenset[Key]]:
        """Returns of each known input of an artifact, the keys that gave these bytes."""
        return self._before[key]

    def measurements(self) -> list[Key]:
        """Returns the keys of artifacts that only say something of their inputs, each after those
        that it may be made from."""
        return [key for kind in MEASUREMENTS for key, record in self.records.items()
                if record.ingredients.get("kind") == kind]

    def before(self, keys: Iterable[Key]) -> set[Key]:
        """Returns the keys, and those of everything that went into them.

        Where several gave the same bytes (all fine-tunes have one architecture), those count that
        went into them in another way too; all of them, if none did.
        """
        found: set[Key] = set()
        left = [frozenset([key]) for key in keys if key in self.records]
        while left:
            left = [makers for makers in left if not makers & found]
            left.sort(key=len, reverse=True)
            if left:
                new = left.pop()
                found |= new
                left += [makers for key in new for makers in self._before[key]]
        return found

    def after(self, keys: Iterable[Key]) -> set[Key]:
        """Returns the keys, and those of everything that was made from them."""
        return _closure(keys, self._after)

    def bundles(self) -> Iterator[Record]:
        """Yields the records of whole bundles."""
        return (r for r in self.records.values() if r.ingredients.get("kind") in BUNDLES)

    def variants(self) -> dict[Key, set[str]]:
        """For each key the variants of bundles that it went into, or measures."""
        found: dict[Key, set[str]] = {key: set() for key in self.records}
        for bundle in self.bundles():
            for key in self.before([bundle.key]):
                found[key].add(variant(bundle))
        for key in self.measurements():
            if inputs := self._before[key]:
                found[key] = set.intersection(
                    *(set().union(*(found[k] for k in makers)) for makers in inputs))
        return {key: names or {NO_BUNDLE} for key, names in found.items()}


def variant(bundle: Record) -> str:
    """Returns the name of a bundle's variant: what its record calls it, or else as
    `Recipe.variant`, though without what only the command line set."""
    if "variant" in bundle.facts:
        return str(bundle.facts["variant"])
    params: Mapping[str, Any] = bundle.ingredients["params"]
    try:
        parts = params["components"].values()
        bits = max((part["nbits"] or 0 for part in parts), default=0)
        chunks = max((len(part["models"]) for part in parts), default=1)
        cut = f"-{chunks}chunks" if chunks > 1 else ""
        return (f"{params['name']}-{params['width_px']}x{params['height_px']}-"
                f"{params['attention']}-{f'{bits}bit' if bits else 'fp16'}{cut}-"
                f"{params['target']}")
    except (KeyError, TypeError, AttributeError):  # of another version
        return str(params.get("name", bundle.step))


def component(record: Record) -> str:
    """Returns the component that a record's step is for; `all` for a bundle."""
    return record.step.partition(":")[2] or "all"


def stage(record: Record) -> str:
    """Returns the stage of a record's step."""
    return record.step.partition(":")[0]


def _digests(record: Record) -> set[Digest]:
    """Returns the digests by which an artifact can be an input: whole, or any path of it."""
    paths = {""}
    for entry in record.tree:
        parts = entry.path.split("/")
        paths.update("/".join(parts[:n]) for n in range(1, len(parts) + 1))
    return {record.digest(path) for path in paths}


def _closure(keys: Iterable[Key], edges: Mapping[Key, set[Key]]) -> set[Key]:
    found: set[Key] = set()
    left = [key for key in keys if key in edges]
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            left += edges[key]
    return found
