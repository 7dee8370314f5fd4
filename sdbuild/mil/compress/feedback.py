"""Indices into a table, chosen column by column: each error is made up for by the columns to come.

Every element is computed by the same operations in the same order, on every machine: no sum is
left to a library, and rows do not depend on each other. So the indices do not depend on threads.
"""

from __future__ import annotations

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
    width = order.shape[1]
    found = np.empty(matrix.shape, np.uint8)
    levels = table.astype(np.float32)
    edges = (levels[:-1] + levels[1:]) / np.float32(2)
    compiled = _kernels(matrix.size * width)
    assign = compiled.assign if compiled else _assign
    for number, at in enumerate(range(0, matrix.shape[1], width)):
        places = order[number][order[number] < matrix.shape[1] - at]
        ordered = matrix[:, at:at + width].astype(np.float32)[:, places]
        steps = np.ascontiguousarray(factors[number, :len(places), :len(places)], np.float32)
        chosen = np.empty(ordered.shape, np.uint8)
        assign(np.ascontiguousarray(ordered), levels, edges, steps, chosen)
        found[:, at + places] = chosen
    return found


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
    """Fills `chosen`; `values` are used up."""
    for column in range(values.shape[1]):
        chosen[:, column] = np.searchsorted(edges, values[:, column])
        errors = values[:, column] - levels[chosen[:, column]]
        values[:, column + 1:] -= errors[:, None] * steps[column, column + 1:]
