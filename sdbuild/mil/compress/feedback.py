"""Indices into a table, chosen column by column: each error is made up for by the columns to come.

Every element is computed by the same operations in the same order, on every machine: no sum is
left to a library, and rows do not depend on each other. So the indices do not depend on threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from sdbuild.mil.compress.compiled import kernels


def indices(
    matrix: np.ndarray, table: np.ndarray, order: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """Returns the index of the table entry that stands for each element.

    Columns come in blocks. Within one they are rounded in its `order`; what rounding column i adds
    to it, times `factors[i, j]`, is taken from column j before that is rounded.

    Shapes:
        matrix: (rows, columns); table: (k,), ascending; order: (blocks, width), each a permutation
        of which numbers beyond the last column are left out; factors: (blocks, width, width), used
        above the diagonal; returns: (rows, columns), uint8.
    Source:
        Frantar et al., "GPTQ", 2022, with a table in the place of the grid.
    """
    found = np.empty(matrix.shape, np.uint8)
    for block in _blocks(matrix, order, factors):
        chosen = block.rounded(block.ordered, table)
        places = np.argsort(block.places)
        np.take(chosen, places, axis=1, out=found[:, block.at:block.at + len(places)], mode="clip")
    return found


def errors(
    matrix: np.ndarray, tables: Sequence[np.ndarray], order: np.ndarray, factors: np.ndarray
) -> list[np.ndarray]:
    """Returns what rounding to each table adds to each element, at the time when it is rounded.

    Shapes:
        matrix, order, factors: as of `indices`; tables: each (k,); returns: each (rows, columns),
        float32
    """
    found = [np.empty(matrix.shape, np.float32) for _ in tables]
    for block in _blocks(matrix, order, factors):
        for table, added in zip(tables, found, strict=True):
            values = block.ordered.copy()
            chosen = block.rounded(values, table)
            added[:, block.at + block.places] = table.astype(np.float32)[chosen] - values
    return found


@dataclass(frozen=True, slots=True)
class _Block:
    """Some columns, from `at`, in the order of rounding.

    Shapes:
        places: (columns,), which they are; ordered: (rows, columns), float32; steps: (columns,
        columns), float32
    """

    at: int
    places: np.ndarray
    ordered: np.ndarray
    steps: np.ndarray

    def rounded(self, values: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Returns the index for each element of `values`, which is `ordered` or a copy of it and
        becomes what was rounded: elements less what they make up for."""
        levels = table.astype(np.float32)
        edges = (levels[:-1] + levels[1:]) / np.float32(2)
        compiled = _kernels(self.ordered.size * len(self.places))
        chosen = np.empty(values.shape, np.uint8)
        (compiled.assign if compiled else _assign)(values, levels, edges, self.steps, chosen)
        return chosen


def _blocks(matrix: np.ndarray, order: np.ndarray, factors: np.ndarray) -> Iterator[_Block]:
    width = order.shape[1]
    for number, at in enumerate(range(0, matrix.shape[1], width)):
        places = order[number][order[number] < matrix.shape[1] - at]
        ordered = np.take(matrix[:, at:at + width], places, axis=1)
        ordered = ordered.astype(np.float32, copy=False)
        steps = np.ascontiguousarray(factors[number, :len(places), :len(places)], np.float32)
        yield _Block(at, places, ordered, steps)


def _kernels(operations: float) -> ModuleType | None:
    """Returns the compiled loop, if it is worth it for so many operations."""
    if kernels(operations) is None:
        return None
    from sdbuild.mil.compress import feedback_kernels

    return feedback_kernels


def _assign(
    values: np.ndarray, levels: np.ndarray, edges: np.ndarray, steps: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Fills `chosen`; `values` become what was rounded."""
    for column in range(values.shape[1]):
        chosen[:, column] = np.searchsorted(edges, values[:, column])
        errors = values[:, column] - levels[chosen[:, column]]
        values[:, column + 1:] -= errors[:, None] * steps[column, column + 1:]
