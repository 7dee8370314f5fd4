"""Finds a store's records of a bundle by its manifest, wherever the bundle is now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.digest import Key, digest_file
from sdbuild.base.errors import MissingArtifact, StepError
from sdbuild.bundle.manifest import MANIFEST
from sdbuild.bundle.request import Request
from sdbuild.reports.lineage import Lineage, component, stage
from sdbuild.reports.measured import drawn_pictures, worst_parity
from sdbuild.reports.page.report import Cost
from sdbuild.reports.verdict import Picture
from sdbuild.store import SHIPPED, Record, Store

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The images of a bundle that were compared with those of its original; `key` tells originals
    apart. The image of a bundle is None if it is not finite."""

    key: str
    requests: tuple[Request, ...]
    originals: tuple[Image, ...]
    pictures: tuple[Picture, ...]
    images: tuple[Image | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The records of a bundle: its own, those of the steps before it, and of its measurements."""

    bundle: Record
    steps: tuple[Record, ...]
    measurements: tuple[Record, ...]

    def costs(self) -> tuple[Cost, ...]:
        """Returns what each step cost, in the order in which they were made."""
        return tuple(
            Cost(step=record.step, seconds=float(record.seconds), peak_bytes=int(record.peak_bytes),
                 size_bytes=record.size_bytes, made_at=record.made_at,
                 is_shipped=record.origin == SHIPPED)
            for record in (*self.steps, *self.measurements))

    def parity(self, store: Store) -> dict[str, dict[str, float]]:
        """Returns the worst PSNR of each output of each component in dB, as `worst_parity`; of
        several sizes each has its outputs."""
        found: dict[str, dict[str, float]] = {}
        for record in self.measurements:
            if stage(record) == "parity":
                name, _, size = component(record).partition("@")
                found.setdefault(name, {}).update({
                    f"{output} at {size}" if size else output: worst
                    for output, worst in worst_parity(record, store).items()})
        return found

    def judged(self, store: Store) -> Judged | None:
        """Returns the images that it was judged by the last time; None if they are not there."""
        found = {stage(record): record for record in self.measurements}
        if "pictures" not in found or "originals" not in found:
            return None
        record, original = found["pictures"], found["originals"]
        pictures = tuple(drawn_pictures(record, store))
        requests = tuple(_requests(record))
        if len(requests) != len(pictures):
            raise StepError(f"{record.step}: {len(pictures)} pictures of {len(requests)} requests",
                            hint="sdbuild forget pictures, then check again")
        try:
            images = tuple(_images(record, store, [p.psnr_db == p.psnr_db for p in pictures]))
            originals = tuple(filter(None, _images(original, store, [True] * len(pictures))))
        except MissingArtifact:  # collected, the records are kept
            return None
        return Judged(key=original.key, requests=requests, originals=originals, pictures=pictures,
                      images=images)


def known(folder: Path, store: Store, lineage: Lineage) -> Known | None:
    """Returns what the store knows of the bundle in a folder; None if it did not make it."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    found = digest_file(path)
    bundle = next((record for record in lineage.bundles()
                   if any(e.digest == found for e in record.part(MANIFEST))), None)
    if bundle is None:
        return None
    before = lineage.before([bundle.key])
    measured: dict[str, Record] = {}
    for key in lineage.measurements():  # the last of each counts; a step stands after its inputs
        known_keys = before | {record.key for record in measured.values()}
        inputs = lineage.inputs(key)
        record = lineage.records[key]
        if inputs and all(makers & known_keys for makers in inputs) and _is_whole(record, inputs):
            measured[record.step] = record
    return Known(bundle=bundle, measurements=tuple(measured.values()),
                 steps=tuple(r for r in lineage.records.values() if r.key in before))


def _is_whole(record: Record, inputs: Sequence[frozenset[Key]]) -> bool:
    """Whether all that it was made of is known."""
    return len(inputs) == len(record.ingredients.get("inputs", {}))


def _requests(record: Record) -> Iterator[Request]:
    """Yields what was asked of a step `pictures`.

    Raises:
        StepError: it is not what such a record holds.
    """
    names = {each.name for each in fields(Request)}
    listed = record.ingredients.get("params", {}).get("requests")
    if not isinstance(listed, list):
        raise StepError(f"{record.step}: no requests in its record")
    for entry in listed:
        if not isinstance(entry, dict) or not entry.keys() <= names:
            raise StepError(f"{record.step}: a request in its record is none")
        try:
            yield Request(**entry)
        except TypeError as error:
            raise StepError(f"{record.step}: a request in its record lacks something") from error


def _images(record: Record, store: Store, are_there: list[bool]) -> Iterator[Image | None]:
    """Yields the images of a step, those that are there."""
    from sdbuild.runtime import images
    from sdbuild.steps.originals import picture

    with tempfile.TemporaryDirectory() as made:
        for number, is_there in enumerate(are_there, 1):
            name = picture(number)
            yield images.read(store.checkout(record, Path(made, name), name)) if is_there else None
