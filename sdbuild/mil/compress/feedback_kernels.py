"""The loop of `feedback.py` that numba compiles."""

from __future__ import annotations

import numba
import numpy as np

from sdbuild.mil.compress.kernels import _compiled

_ROWS = numba.float32[:, ::1]
_NUMBERS = numba.float32[::1]


@_compiled(_ROWS, _NUMBERS, _NUMBERS, _ROWS, numba.uint8[:, ::1])
def assign(
    values: np.ndarray, levels: np.ndarray, edges: np.ndarray, steps: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Fills `chosen` with the index of the level that stands for each value, row by row; `values`
    are used up.

    Shapes:
        values, chosen: (rows, columns); levels: (k,); edges: (k - 1,); steps: (columns, columns)
    """
    rows, columns = values.shape
    for row in range(rows):
        for column in range(columns):
            value = values[row, column]
            low, high = 0, len(edges)
            while low < high:
                middle = (low + high) // 2
                if edges[middle] < value:
                    low = middle + 1
                else:
                    high = middle
            chosen[row, column] = low
            error = value - levels[low]
            for later in range(column + 1, columns):
                values[row, later] -= error * steps[column, later]
