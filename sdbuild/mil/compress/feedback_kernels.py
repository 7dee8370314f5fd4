"""The loops of `feedback.py` that numba compiles."""

from __future__ import annotations

import numba
import numpy as np

from sdbuild.mil.compress.kernels import _compiled

_COLUMNS = 8  # whose errors later columns make up for at once
_ROWS_AT_ONCE = 8  # whose searches wait for memory at the same time
_ROWS = numba.float32[:, ::1]
_NUMBERS = numba.float32[::1]
_INDICES = numba.uint8[:, ::1]


@_compiled(_NUMBERS, numba.float32)
def _place(edges: np.ndarray, value: float) -> int:
    """The number of edges below a value, found without branches that depend on it."""
    low, count = 0, len(edges)
    while count > 1:
        half = count // 2
        low += half if edges[low + half - 1] < value else 0
        count -= half
    return low + (1 if count == 1 and edges[low] < value else 0)


@_compiled(_ROWS, _ROWS, _ROWS, numba.int64)
def _subtract(values: np.ndarray, errors: np.ndarray, steps: np.ndarray, start: int) -> None:
    """Takes the errors of eight columns from those after them, four at a time: so many products
    are added up in registers, one after another.

    Shapes:
        values: (rows, columns); errors: (rows, 8); steps: (columns, columns)
    """
    stop = start + _COLUMNS
    count = values.shape[1] - stop
    for row in range(len(values)):
        rest = values[row, stop:]
        for column in range(0, _COLUMNS, 4):
            at = start + column
            step0, step1 = steps[at, stop:], steps[at + 1, stop:]
            step2, step3 = steps[at + 2, stop:], steps[at + 3, stop:]
            error0, error1 = errors[row, column], errors[row, column + 1]
            error2, error3 = errors[row, column + 2], errors[row, column + 3]
            for later in range(count):
                rest[later] = (((rest[later] - error0 * step0[later]) - error1 * step1[later])
                               - error2 * step2[later]) - error3 * step3[later]


@_compiled(_ROWS, _NUMBERS, _NUMBERS, _ROWS, _INDICES)
def assign(
    values: np.ndarray, levels: np.ndarray, edges: np.ndarray, steps: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Fills `chosen` with the index of the level that stands for each value; `values` become what
    was rounded.

    Errors are taken from later columns in the order of columns, as numpy's loop does. Only what
    lies within some columns is taken at once; the rest waits for all of these, so that it is read
    and written less often.

    Shapes:
        values, chosen: (rows, columns); levels: (k,); edges: (k - 1,); steps: (columns, columns)
    """
    rows, columns = values.shape
    errors = np.zeros((rows, _COLUMNS), np.float32)
    for start in range(0, columns, _COLUMNS):
        stop = min(start + _COLUMNS, columns)
        for first in range(0, rows, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, rows)
            for column in range(start, stop):
                for row in range(first, last):
                    value = values[row, column]
                    index = _place(edges, value)
                    chosen[row, column] = index
                    error = value - levels[index]
                    errors[row, column - start] = error
                    for later in range(column + 1, stop):
                        values[row, later] -= error * steps[column, later]
        if stop < columns:
            _subtract(values, errors, steps, start)
