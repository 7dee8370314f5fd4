"""Sorted points cut into runs of least squared error: exact one-dimensional k-means.

A set of cuts is best if none is better in which every cut stays between its neighbours: the error
of a run is a Monge array, and of two sets of cuts that overtake each other by more than a run the
parts can be swapped without loss, so a better one far away means a better one nearby. So we start
from the best cuts of a coarser histogram, and move to the best ones between the neighbours until
that finds none; each move is a dynamic program over two points a point instead of all for each run.
Compiled, moves are cheap, and we start from cuts that a formula gives: the best cuts do not depend
on where they were looked for.

Where a few points lie very far from all others, the gain of setting them apart drowns what the
other cuts differ in. There `every_cut.py` does it all: it adds up errors, which stay small.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sdbuild.mil.compress import every_cut
from sdbuild.mil.compress.compiled import kernels

_FEW_RUNS = 8  # up to here all cuts are looked at as fast
_COARSER, _LEAST_COARSER = 16, 4  # points that the first cuts take together
_STRIDES = 64, 16, 4, 1  # that compiled rounds begin with, where there are points enough
_FAN = 8  # rows looked at between two whose best columns are known
_ELEMENTS = 32  # that numpy looks at while Python looks at a point for a run
_MOST_RATIO = 1e9  # of gain to error; beyond it sums of 53 bits do not tell which cuts are better


@dataclass(frozen=True, slots=True)
class _Sums:
    """For each cut, the weight of the points before it and the sum of their weighted values.

    Shapes:
        weights, moments: (points + 1,)
    """

    weights: np.ndarray
    moments: np.ndarray

    def at(self, places: slice | np.ndarray) -> _Sums:
        """Returns the sums for some of the cuts."""
        return _Sums(self.weights[places], self.moments[places])


def best_cuts(values: np.ndarray, weights: np.ndarray, runs: int) -> np.ndarray:
    """Returns the cuts into `runs` runs of least squared error, 0 and the number of points
    included.

    Shapes:
        values: (n,), ascending; weights: (n,), positive; n >= runs; returns: (runs + 1,)
    """
    count = len(values)
    every = count // max(4 * runs, count // _COARSER)
    if runs <= _FEW_RUNS or every < _LEAST_COARSER:
        return _cuts_by_errors(values, weights, runs)
    sums = _sums(values, weights)
    is_mirrored = np.array_equal(weights, weights[::-1])  # then two ends are as good, mirrored
    compiled = None if is_mirrored else kernels(max(weights.sum(), _work(values, runs)))
    if compiled:
        stride = next(s for s in _STRIDES if count >= 8 * runs * s)
        start = _likely_cuts(values, weights, runs, stride)
        cuts = compiled.best_cuts(sums.weights, sums.moments, start, stride)
    else:
        cuts = _cuts_from_coarser(values, weights, sums, runs, every)
    if _gain(sums, cuts) > _MOST_RATIO * _error(values, weights, cuts):
        return _cuts_by_errors(values, weights, runs)
    return cuts


def _likely_cuts(values: np.ndarray, weights: np.ndarray, runs: int, stride: int) -> np.ndarray:
    """Cuts near the best ones, at multiples of `stride` but for the last.

    Of many runs the best are as dense as the cube root of the density of the weights.

    Source:
        Panter and Dite, Quantization distortion in pulse-count modulation with nonuniform spacing
        of levels (1951).
    """
    count = len(values)
    share = np.cumsum(np.cbrt(np.diff(values, prepend=values[0]) ** 2 * weights))
    cuts = np.searchsorted(share, np.arange(runs) * (share[-1] / runs)) // stride
    place = np.arange(runs)
    cuts = np.maximum.accumulate(cuts - place) + place  # each has one of its own,
    cuts = np.minimum(cuts, (count - 1) // stride - (runs - 1 - place))  # also near the end
    cuts[0] = 0
    return np.append(cuts * stride, count)


def _cuts_from_coarser(
    values: np.ndarray, weights: np.ndarray, sums: _Sums, runs: int, every: int
) -> np.ndarray:
    """Returns the best cuts, found from those between every so many points."""
    count = len(values)
    starts = np.arange(0, count, every)
    coarse = np.add.reduceat(weights, starts)
    means = np.add.reduceat(values * weights, starts) / coarse
    cuts = np.minimum(_cuts_by_errors(means, coarse, runs) * every, count)
    while _gain(sums, moved := _best_nearby(sums, cuts)) > _gain(sums, cuts):
        cuts = moved
    return cuts


def _cuts_by_errors(values: np.ndarray, weights: np.ndarray, runs: int) -> np.ndarray:
    """Returns the best cuts by dynamic programming over all points for each run."""
    compiled = kernels(_work(values, runs))
    return (compiled or every_cut).cuts_by_errors(
        np.ascontiguousarray(values), np.ascontiguousarray(weights), runs)


def _work(values: np.ndarray, runs: int) -> int:
    """Returns the work of a dynamic program, in elements that numpy looks at meanwhile."""
    return _ELEMENTS * len(values) * runs


def _sums(values: np.ndarray, weights: np.ndarray) -> _Sums:
    centred = values - (values * weights).sum() / weights.sum()
    return _Sums(*(np.concatenate(([0.0], np.cumsum(a))) for a in (weights, weights * centred)))


def _gain(sums: _Sums, cuts: np.ndarray) -> float:
    """By how much these cuts lower the squared error of a single run."""
    weights, moments = np.diff(sums.weights[cuts]), np.diff(sums.moments[cuts])
    return float((moments**2 / weights).sum())


def _error(values: np.ndarray, weights: np.ndarray, cuts: np.ndarray) -> float:
    """Returns the squared error of the runs between these cuts."""
    starts = cuts[:-1]
    means = np.add.reduceat(values * weights, starts) / np.add.reduceat(weights, starts)
    return float((weights * (values - np.repeat(means, np.diff(cuts))) ** 2).sum())


def _best_nearby(sums: _Sums, cuts: np.ndarray) -> np.ndarray:
    """Returns the best cuts of which each lies between the neighbours that it has in `cuts`."""
    ends = (slice(0, 1), slice(cuts[-1], cuts[-1] + 1))
    places = [ends[0], *(slice(a, b + 1) for a, b in zip(cuts, cuts[2:], strict=False)), ends[1]]
    errors = [np.zeros(1)]
    for before, after in pairwise(places[:-1]):
        errors.append(_least_errors(sums.at(after), sums.at(before), errors[-1]))
    moved = cuts.copy()
    for at in range(len(cuts) - 2, 0, -1):
        last = sums.at(moved[at + 1:at + 2])
        found = _errors(last, sums.at(places[at]), errors[at])
        moved[at] = places[at].start + found.argmin()
    return moved


def _errors(after: _Sums, before: _Sums, errors: np.ndarray) -> np.ndarray:
    """Returns `errors` with that of a run from `before` to `after`, infinite for a run of no
    points.

    Errors are less that of a single run from the start: - moment² / weight each.
    """
    weights = after.weights - before.weights
    gains = after.moments - before.moments
    gains *= gains
    empty = weights <= 0
    weights[empty] = 1
    gains[empty] = -np.inf
    gains /= weights
    return np.subtract(errors, gains, out=gains)


def _least_errors(rows: _Sums, columns: _Sums, errors: np.ndarray) -> np.ndarray:
    """For each row the least error over the columns.

    The best column never moves back from one row to the next, so the rows between two whose best
    columns are known are looked at only between these.

    Shapes:
        errors: (columns,); returns: (rows,)
    """
    count = len(rows.weights)
    first = _errors(rows.at(slice(0, 1)), columns, errors)
    known, best = np.zeros(1, np.intp), np.array([first.argmin()])
    least = np.full(count, first.min())
    stride = 1
    while stride < count:
        stride *= _FAN
    while stride > 1:
        finer = stride // _FAN
        inner = known + np.arange(finer, stride, finer)[:, None]
        inside = np.minimum(inner[inner[:, 0] < count], count - 1)
        least[inside], best_inside = _between(rows, columns, errors, best, inside)
        known = np.concatenate((known[None], inside)).T.ravel()
        best = np.concatenate((best[None], best_inside)).T.ravel()
        stride = finer
    return least


def _between(
    rows: _Sums, columns: _Sums, errors: np.ndarray, best: np.ndarray, inner: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least errors and best columns of the rows `inner`, those in each column after one
    of which the best is known.

    Shapes:
        best: (known,); inner: (rows in between, known); returns: both as inner.
    """
    count = len(errors)
    best = np.maximum.accumulate(best)  # rounding may take one back: see `_MOST_RATIO`
    widths = np.append(best[1:], count - 1) - best + 1
    starts = np.cumsum(widths) - widths
    places = np.arange(widths.sum()) - np.repeat(starts - best, widths)
    after = _Sums(*(np.repeat(a[inner], widths, axis=1) for a in (rows.weights, rows.moments)))
    found = _errors(after, columns.at(places), errors[places])
    least = np.minimum.reduceat(found, starts, axis=1)
    at = np.where(found == np.repeat(least, widths, axis=1), places, count - 1)
    return least, np.minimum.reduceat(at, starts, axis=1)
