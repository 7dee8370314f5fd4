"""Palettes of tables and bits that were chosen for each weight, package to package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.mil.compress import feedback, kmeans
from sdbuild.mil.compress.compress import ARGUMENT_OPSET, Selection, compress
from sdbuild.mil.compress.packed_weights import Method, Packed, Task, TensorReport, loss, report
from sdbuild.mil.compress.palettize import unscaled
from sdbuild.mil.files.blob import Blobs
from sdbuild.mil.ir.dtype import PALETTE_BITS

OLD_BITS = (1, 2, 4, 6, 8)
"""The bits of palettes before iOS 18."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The palette of one weight. Without a `table`, the best for its values; with `order` and
    `factors`, each error is made up for by later columns (`feedback.py`).

    `is_transposed` says that the weight's rows are the columns that these are of.
    """

    bits: int
    table: np.ndarray | None = None
    order: np.ndarray | None = None
    factors: np.ndarray | None = None
    is_transposed: bool = False


Choose = Callable[[Task], Choice | None]
"""Gives the palette of a weight, None for one that is left as it is, or raises MILError."""


def widths(opset: int) -> tuple[int, ...]:
    """Returns the bits of palettes that an opset, by number, has."""
    return PALETTE_BITS if opset >= ARGUMENT_OPSET else OLD_BITS


def palettize_as(
    source: Path, destination: Path, choose: Choose, *, skip_types: Sequence[str] = (),
    workers: int = 1, weights: Blobs | None = None,
) -> tuple[TensorReport, ...]:
    """Palettizes the weights of the package `source` into a package at `destination`.

    The same weights are taken as by `palettize`, in the same form; the same source and choices
    give the same bytes, whatever `workers` (threads) is. `weights` are those of `compress`.

    Raises:
        MILError: as `palettize`, or a table is not one of the weight's bits.
        InvalidProgram: `source` is not a sound package.
    """
    def pack(task: Task, array: np.ndarray) -> Packed | None:
        choice = choose(task)
        return None if choice is None else _pack(task, choice, array)

    method = Method(suffixes=("_palettized",), allows=lambda bits, opset: None, pack=pack)
    return compress(source, destination, Selection(nbits=1, skip_types=skip_types), method, workers,
                    weights)


def _pack(task: Task, choice: Choice, array: np.ndarray) -> Packed:
    task = replace(task, bits=choice.bits)
    _check(task, choice)
    table = choice.table
    if table is None:
        table = kmeans.palette(kmeans.histogram(array), choice.bits, array.dtype)
    table = table.astype(array.dtype)
    exact = array.astype(np.float32, copy=False)  # once: numpy casts fp16 number by number
    chosen = _indices(choice, table, array, exact)
    operations = unscaled(task, table[np.newaxis], kmeans.packed(chosen, choice.bits), 0)
    lost = loss(exact, table.astype(np.float32)[chosen])
    return Packed(operations=operations, report=report(task, operations, lost))


def _check(task: Task, choice: Choice) -> None:
    known = PALETTE_BITS if task.as_argument else OLD_BITS
    if choice.bits not in known:
        raise MILError(f"palettes of {choice.bits} bits, expected one of "
                       f"{', '.join(map(str, known))}", hint="3 bits need iOS 18")
    if choice.table is not None and choice.table.shape != (1 << choice.bits,):
        raise MILError(f"a table of {choice.table.size} entries, expected {1 << choice.bits}")


def _indices(
    choice: Choice, table: np.ndarray, array: np.ndarray, exact: np.ndarray
) -> np.ndarray:
    """Returns the index of each element.

    Shapes:
        table: (2**bits,), ascending; exact: `array` in float32; returns: as `array`, uint8
    """
    if choice.order is None or choice.factors is None:
        return kmeans.indices(table, array).reshape(array.shape)
    turned = exact.T if choice.is_transposed else exact
    found = feedback.indices(turned.reshape(len(turned), -1), table, choice.order, choice.factors)
    found = found.reshape(turned.shape)
    return np.ascontiguousarray(found.T) if choice.is_transposed else found
