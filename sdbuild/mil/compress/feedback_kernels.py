"""The loops of `feedback.py` that numba compiles."""

from __future__ import annotations

import numba
import numpy as np

from sdbuild.mil.compress.kernels import _compiled

_COLUMNS = 8  # whose errors later columns make up for at once
_AT_ONCE = 256  # rows of these columns, turned, that stay in the nearest cache
_BUCKETS = 2048  # of which few have more than one edge
_ZERO, _LAST = np.float32(0), np.float32(_BUCKETS - 1)
_NUMBER, _INT = numba.float32, numba.int64
_ROWS = numba.float32[:, ::1]
_NUMBERS = numba.float32[::1]
_INDICES = numba.uint8[:, ::1]
_STARTS = numba.uint8[::1]


@_compiled(_NUMBER, _NUMBER, _NUMBER)
def _bucket(value: np.float32, low: np.float32, scale: np.float32) -> np.int32:
    """The bucket of a value; none is before that of a smaller value."""
    at = (value - low) * scale
    at = at if at > _ZERO else _ZERO  # also what is not a number
    return np.int32(at if at < _LAST else _LAST)


@_compiled(_NUMBERS, _NUMBER, _NUMBER)
def _starts(edges: np.ndarray, low: np.float32, scale: np.float32) -> np.ndarray:
    """The number of edges before each bucket, and of all."""
    starts = np.zeros(_BUCKETS + 1, np.uint8)
    for edge in edges:
        starts[_bucket(edge, low, scale) + 1] += 1
    for bucket in range(_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    return starts


@_compiled(_NUMBERS, _STARTS, _INT, _NUMBER)
def _place(edges: np.ndarray, starts: np.ndarray, bucket: int, value: float) -> np.int64:
    """The number of edges below a value: all of earlier buckets, none of later ones. The last edge
    is infinite."""
    low = np.int64(starts[bucket])
    count = np.int64(starts[bucket + 1]) - low
    while count > 1:
        half = count // 2
        low += half if edges[low + half - 1] < value else 0
        count -= half
    return low + (1 if edges[low] < value else 0)


@_compiled(_ROWS, _ROWS, _ROWS, _INT)
def _subtract(values: np.ndarray, errors: np.ndarray, steps: np.ndarray, start: int) -> None:
    """Takes the errors of eight columns from those after them: so many products are added up in
    registers, one after another.

    Shapes:
        values: (rows, columns); errors: (8, rows); steps: (columns, columns)
    """
    stop = start + _COLUMNS
    steps0, steps1 = steps[start, stop:], steps[start + 1, stop:]
    steps2, steps3 = steps[start + 2, stop:], steps[start + 3, stop:]
    steps4, steps5 = steps[start + 4, stop:], steps[start + 5, stop:]
    steps6, steps7 = steps[start + 6, stop:], steps[start + 7, stop:]
    for row in range(len(values)):
        rest = values[row, stop:]
        error0, error1 = errors[0, row], errors[1, row]
        error2, error3 = errors[2, row], errors[3, row]
        error4, error5 = errors[4, row], errors[5, row]
        error6, error7 = errors[6, row], errors[7, row]
        for later in range(len(rest)):
            half = (((rest[later] - error0 * steps0[later]) - error1 * steps1[later])
                    - error2 * steps2[later]) - error3 * steps3[later]
            rest[later] = (((half - error4 * steps4[later]) - error5 * steps5[later])
                           - error6 * steps6[later]) - error7 * steps7[later]


@_compiled(_NUMBERS, _NUMBERS, _NUMBER)
def _lower(rounded: np.ndarray, errors: np.ndarray, step: float) -> None:
    """Takes the errors of one column, times a step, from another column."""
    for row in range(len(rounded)):
        rounded[row] -= errors[row] * step


@_compiled(_NUMBERS, _NUMBERS, _STARTS, _NUMBER, _NUMBERS, numba.int32[::1], _STARTS, _NUMBERS)
def _round(
    rounded: np.ndarray, edges: np.ndarray, starts: np.ndarray, scale: np.float32,
    levels: np.ndarray, buckets: np.ndarray, indices: np.ndarray, errors: np.ndarray,
) -> None:
    """Fills the indices of a column's values, and what rounding takes from them."""
    for row in range(len(rounded)):
        buckets[row] = _bucket(rounded[row], edges[0], scale)
    for row in range(len(rounded)):
        indices[row] = _place(edges, starts, buckets[row], rounded[row])
        errors[row] = rounded[row] - levels[indices[row]]


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
    low, span = edges[0], edges[-1] - edges[0]
    scale = np.float32(_BUCKETS) / span if span > 0 else _ZERO
    starts = _starts(edges, low, scale)
    limits = np.append(edges, np.float32(np.inf))
    errors = np.zeros((_COLUMNS, rows), np.float32)
    rounded, indices = np.empty(_AT_ONCE, np.float32), np.empty(_AT_ONCE, np.uint8)
    buckets = np.empty(_AT_ONCE, np.int32)
    for start in range(0, columns, _COLUMNS):
        stop = min(start + _COLUMNS, columns)
        for first in range(0, rows, _AT_ONCE):
            count = min(_AT_ONCE, rows - first)
            for column in range(start, stop):
                for row in range(count):
                    rounded[row] = values[first + row, column]
                for before in range(start, column):
                    _lower(rounded[:count], errors[before - start, first:first + count],
                           steps[before, column])
                _round(rounded[:count], limits, starts, scale, levels, buckets, indices,
                       errors[column - start, first:first + count])
                for row in range(count):
                    values[first + row, column] = rounded[row]
                    chosen[first + row, column] = indices[row]
        if stop < columns:
            _subtract(values, errors, steps, start)
