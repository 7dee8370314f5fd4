"""One-dimensional k-means by dynamic programming over all points for each run.

`kernels.py` compiles the function here; without numba Python runs it, for the same cuts.
"""

from __future__ import annotations

import numpy as np


def cuts_by_errors(values: np.ndarray, weights: np.ndarray, runs: int) -> np.ndarray:
    """Returns the cuts into `runs` runs of least squared error, 0 and the number of points
    included.

    The last run of the first so many points never begins earlier when there are more of them: ends
    half way between two whose best starts are known are looked at only between these.

    Shapes:
        values: (n,), ascending; weights: (n,), positive; n >= runs; returns: (runs + 1,)
    Source:
        Wu, Optimal Quantization by Matrix Searching (1991): the matrix of errors is totally
        monotone. The formula of an error is that of kmeans1d 0.4.0 (MIT).
    """
    count = len(values)
    weight, moment, square = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
    for at in range(count):
        weight[at + 1] = weight[at] + weights[at]
        moment[at + 1] = moment[at] + weights[at] * values[at]
        square[at + 1] = square[at] + weights[at] * (values[at] * values[at])
    starts = np.zeros((runs, count + 1), np.int32)
    before, least = np.full(count + 1, np.inf), np.full(count + 1, np.inf)
    for end in range(1, count + 1):
        mean = moment[end] / weight[end]
        before[end] = square[end] + weight[end] * (mean * mean) - 2 * mean * moment[end]
    for run in range(1, runs):
        ends = count - run  # run + 1 and after; fewer points are too few
        stride, first = 1, 0  # the first of all ends, then those half way between known ones
        while stride < ends:
            stride *= 2
        while stride > 0:
            for row in range(first, ends, 2 * stride):
                end = run + 1 + row
                low = starts[run, end - stride] if row > 0 else run
                high = end - 1
                if 0 < row < ends - stride:
                    high = min(high, starts[run, end + stride])
                smallest, best = np.inf, low
                for start in range(low, high + 1):
                    heavy = weight[end] - weight[start]
                    drawn = moment[end] - moment[start]
                    mean = drawn / heavy
                    error = square[end] - square[start] + heavy * (mean * mean) - 2 * mean * drawn
                    if before[start] + error < smallest:
                        smallest, best = before[start] + error, start
                least[end], starts[run, end] = smallest, best
            stride //= 2
            first = stride
        before, least = least, before
    cuts = np.empty(runs + 1, np.int64)
    cuts[0], cuts[runs] = 0, count
    for run in range(runs - 1, 0, -1):
        cuts[run] = starts[run, cuts[run + 1]]
    return cuts
