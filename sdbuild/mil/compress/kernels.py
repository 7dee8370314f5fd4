"""Loops over weights and histograms that numba compiles; `compiled.py` loads them.

Each gives exactly what the numpy code beside its caller gives, only sooner: no sum is reordered,
and nothing is contracted to fused operations, so that a table never depends on who computed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from sdbuild.mil.compress import every_cut

_COARSE = 4  # a stride at which all places between the neighbours are looked at in no time
_NEAR, _FAR = 8, 1 << 40  # strides
_MOST_ROUNDS = 16  # at one stride: then fewer are left at the next


def _read(dtype: Any) -> Any:
    """Returns the type of an array that is only read, as a mapped weight file is."""
    return numba.types.Array(dtype, 1, "C", readonly=True)


_PATTERNS, _INDICES = _read(numba.uint16), _read(numba.uint8)
_SUMS, _CUTS, _INT = numba.float64[::1], numba.int64[::1], numba.int64


def _compiled(*types: Any) -> Callable[[Any], Any]:
    """Compiles a function for arguments of these types now, or takes it from numba's cache.

    A cache that cannot be written or read is done without: an index that a power failure cut, a
    full disk, a home that is only read.
    """
    def decorate(function: Any) -> Any:
        try:
            return numba.njit(types, cache=True, nogil=True)(function)
        except Exception:  # whatever unpickling raises; what is wrong in the code comes again
            return numba.njit(types, nogil=True)(function)

    return decorate


cuts_by_errors = _compiled(_SUMS, _SUMS, _INT)(every_cut.cuts_by_errors)


@_compiled(_PATTERNS, numba.uint32[:, ::1])
def count_patterns(patterns: np.ndarray, tables: np.ndarray) -> None:
    """Adds to `tables` how often each 16-bit pattern occurs, fewer than 2**32 times in all.

    Two tables take turns: one would wait for itself where a value follows itself. Together they
    fit in the second cache.

    Shapes:
        patterns: (n,), uint16; tables: (2, 65536), uint32; their sums are the counts
    """
    one, whole = np.uint32(1), len(patterns) // 2 * 2
    for at in range(0, whole, 2):
        tables[0, patterns[at]] += one
        tables[1, patterns[at + 1]] += one
    if whole < len(patterns):
        tables[0, patterns[whole]] += one


def _look_up_and_pack(
    patterns: np.ndarray, index_of: np.ndarray, bits: int, packed: np.ndarray
) -> None:
    """Fills `packed` with the index of each pattern, `bits` bits each, the lowest first.

    Eight indices fill some whole bytes, and are put together with those before them to words.

    Shapes:
        patterns: (n,), uint16 or uint8; index_of: (each pattern,), uint8, below 2**bits
        packed: (ceil(n * bits / 8),), uint8, aligned to words
    """
    words = packed[:len(packed) // 8 * 8].view(np.uint64)
    width, at = np.uint64(8 * bits), 0
    word, filled = np.uint64(0), np.uint64(0)
    whole = len(patterns) // 8 * 8
    for start in range(0, whole, 8):
        eight = np.uint64(0)
        for place in range(8):
            eight |= np.uint64(index_of[patterns[start + place]]) << np.uint64(place * bits)
        word |= eight << filled
        filled += width
        if filled >= 64:
            words[at] = word
            at += 1
            filled -= np.uint64(64)
            word = eight >> (width - filled) if filled > 0 else np.uint64(0)
    rest = np.uint64(0)
    for place in range(len(patterns) - whole):
        rest |= np.uint64(index_of[patterns[whole + place]]) << np.uint64(place * bits)
    end = np.int64(8 * at)
    for part, first in ((word, end), (rest, end + np.int64(filled) // 8)):
        for byte in range(first, len(packed)):
            packed[byte] = part & np.uint64(255)
            part >>= np.uint64(8)


look_up_and_pack = _compiled(_PATTERNS, _INDICES, _INT, numba.uint8[::1])(_look_up_and_pack)
pack_indices = _compiled(_INDICES, _INDICES, _INT, numba.uint8[::1])(_look_up_and_pack)


@_compiled(_SUMS, _SUMS, _INT, _INT, _INT, _SUMS, _INT, _INT)
def _least_error(
    weights: np.ndarray, moments: np.ndarray, end: int, start: int, stride: int,
    before: np.ndarray, low: int, high: int,
) -> tuple[float, int]:
    """The least error of a run up to `end`, and from which column, `low` to `high`; of those that
    are equal the first, as `argmin` has it."""
    least, best = np.inf, low
    for column in range(low, high + 1):
        cut = start + column * stride
        weight = weights[end] - weights[cut]
        if weight <= 0:
            break
        moment = moments[end] - moments[cut]
        error = before[column] - moment * moment / weight
        if error < least:
            least, best = error, column
    return least, best


@_compiled(_SUMS, _SUMS, _INT, _INT, _INT, _SUMS, _SUMS, _CUTS)
def _least_errors(
    weights: np.ndarray, moments: np.ndarray, end: int, start: int, stride: int,
    before: np.ndarray, least: np.ndarray, best: np.ndarray,
) -> None:
    """Fills `least` with the least error of a run up to each end from any start.

    The best start never moves back from one end to the next: ends half way between two whose best
    starts are known are looked at only between these.

    Shapes:
        end, start: the first of each, `stride` apart; before: (starts,), the errors of the runs
        before; least: (ends,); best: (ends or more,)
    """
    count, last = len(least), len(before) - 1
    least[0], best[0] = _least_error(weights, moments, end, start, stride, before, 0, last)
    step = 1
    while step < count:
        step *= 2
    while step > 1:
        half = step // 2
        for row in range(half, count, step):
            high = best[row + half] if row + half < count else last
            least[row], best[row] = _least_error(
                weights, moments, end + row * stride, start, stride, before, best[row - half],
                high)
        step = half


@_compiled(_SUMS, _SUMS, _CUTS, _INT, _INT)
def _best_nearby(
    weights: np.ndarray, moments: np.ndarray, cuts: np.ndarray, stride: int, reach: int
) -> np.ndarray:
    """The best cuts of which each lies between its neighbours in `cuts`, and at most `reach`
    strides from where it is."""
    runs = len(cuts) - 1
    lows, offsets = np.empty(runs, np.int64), np.empty(runs + 1, np.int64)
    lows[0], offsets[0], offsets[1], most = 0, 0, 1, 1
    for at in range(1, runs):
        lows[at] = max(cuts[at - 1], cuts[at] - reach * stride)
        count = (min(cuts[at + 1], cuts[at] + reach * stride) - lows[at]) // stride + 1
        offsets[at + 1] = offsets[at] + count
        most = max(most, count)
    errors, best = np.empty(offsets[runs]), np.empty(most, np.int64)
    errors[0] = 0
    for at in range(1, runs):
        before = errors[offsets[at - 1]:offsets[at]]
        _least_errors(weights, moments, lows[at], lows[at - 1], stride, before,
                      errors[offsets[at]:offsets[at + 1]], best)
    moved = cuts.copy()
    for at in range(runs - 1, 0, -1):
        before = errors[offsets[at]:offsets[at + 1]]
        column = _least_error(weights, moments, moved[at + 1], lows[at], stride, before, 0,
                              len(before) - 1)[1]
        moved[at] = lows[at] + column * stride
    return moved


@_compiled(_SUMS, _SUMS, _CUTS)
def _gain(weights: np.ndarray, moments: np.ndarray, cuts: np.ndarray) -> float:
    """By how much these cuts lower the squared error of a single run."""
    total = 0.0
    for at in range(len(cuts) - 1):
        moment = moments[cuts[at + 1]] - moments[cuts[at]]
        weight = weights[cuts[at + 1]] - weights[cuts[at]]
        if weight > 0:
            total += moment * moment / weight
    return total


@_compiled(_SUMS, _SUMS, _CUTS, numba.float64, _INT, _INT)
def _improved(
    weights: np.ndarray, moments: np.ndarray, cuts: np.ndarray, gain: float, stride: int, reach: int
) -> tuple[np.ndarray, float]:
    """`cuts` after some rounds at one stride, and their gain; fewer if one finds none better."""
    for _ in range(_MOST_ROUNDS):
        moved = _best_nearby(weights, moments, cuts, stride, reach)
        better = _gain(weights, moments, moved)
        if better <= gain:
            break
        cuts, gain = moved, better
    return cuts, gain


@_compiled(_SUMS, _SUMS, _CUTS, _INT)
def best_cuts(
    weights: np.ndarray, moments: np.ndarray, start: np.ndarray, stride: int
) -> np.ndarray:
    """The best cuts, found from `start`: at that stride, at finer ones, and then at every place.

    The last round looks at all places between the neighbours and finds no cuts that are better, so
    that there are none: see `partition.py`.

    Shapes:
        weights, moments: (points + 1,), `partition._Sums`; start: (runs + 1,), multiples of
        `stride` but for the last; returns: (runs + 1,)
    """
    cuts, gain = start.copy(), _gain(weights, moments, start)
    while stride >= 1:
        reach = _NEAR if stride < _COARSE else _FAR
        cuts, gain = _improved(weights, moments, cuts, gain, stride, reach)
        stride //= 4
    while True:
        moved = _best_nearby(weights, moments, cuts, 1, _FAR)
        better = _gain(weights, moments, moved)
        if better <= gain:
            return moved
        cuts, gain = _improved(weights, moments, moved, better, 1, _NEAR)
