"""Measurements read from the records of their steps, which a shared store may have given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from sdbuild.base.errors import StepError
from sdbuild.base.parsing import Fields, json_value, read_file
from sdbuild.reports.verdict import Picture
from sdbuild.steps.parity import PARITY
from sdbuild.steps.pictures import PICTURES
from sdbuild.store import Record, Store


def drawn_pictures(record: Record, store: Store) -> list[Picture]:
    """Returns the pictures of a step `pictures`, in order.

    Raises:
        StepError: the artifact is not what the step writes.
    """
    return [
        Picture(prompt=found.text("prompt", default=""), seed=found.integer("seed", high=2**64),
                psnr_db=_psnr(found))
        for found in _each(_fields(record, store, PICTURES), "pictures")
    ]


def worst_parity(record: Record, store: Store) -> dict[str, float]:
    """Returns the least PSNR in dB of each output of a component, from its step `parity`: NaN if it
    is not finite, infinity if nothing differs.

    Raises:
        StepError: the artifact is not what the step writes.
    """
    worst: dict[str, float] = {}
    for sample in _each(_fields(record, store, PARITY), "samples"):
        output, psnr = sample.text("output"), _psnr(sample)
        before = worst.get(output, psnr)
        worst[output] = psnr if psnr != psnr else min(before, psnr)
    return worst


def nonfinite(record: Record, store: Store) -> list[str]:
    """Returns what a step `parity` says of operations that made NaN or infinity."""
    return _fields(record, store, PARITY).listed("nonfinite", str)


def _fields(record: Record, store: Store, name: str) -> Fields:
    """Returns the content of a file of an artifact; a list is the field that the file is named
    after."""
    with tempfile.TemporaryDirectory() as folder:
        path = store.checkout(record, Path(folder) / name, name)
        found = json_value(read_file(path, StepError), f"{record.step}: {name}", StepError,
                           has_infinities=True)
    values = found if isinstance(found, dict) else {Path(name).stem: found}
    return Fields(values, f"{record.step}: {name}", StepError)


def _each(found: Fields, name: str) -> Iterator[Fields]:
    return (Fields(entry, f"{found.where}: {name}", StepError)
            for entry in found.listed(name, dict))


def _psnr(measured: Fields) -> float:
    """Returns a PSNR in dB as its step wrote it: NaN if it is not finite, infinity if nothing
    differs."""
    if not measured.flag("is_finite"):
        return float("nan")
    return measured.number("psnr_db", default=float("inf"))
