"""Palettes: the best 2**nbits values to stand for many, by exact one-dimensional k-means.

Works on the histogram of a tensor, never on the tensor: an fp16 tensor has at most 63,487 distinct
finite values, however large it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdbuild.mil.compress.compiled import kernels
from sdbuild.mil.compress.packed_weights import refuse_not_finite
from sdbuild.mil.compress.partition import best_cuts
from sdbuild.mil.files.arrays import pack_bits

_SLICE = 1 << 20
_COUNTED = 1 << 31  # elements, of which counts have room in 32 bits
_MOST_POINTS = 1 << 16
_WIDTHS = 8  # that are tried until the bins are as many as they may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The distinct values of a tensor, ascending, and how much each counts.

    Shapes:
        values, counts: (n,), float64.
    """

    values: np.ndarray
    counts: np.ndarray


def histogram(array: np.ndarray, weights: np.ndarray | None = None) -> Histogram:
    """Returns the histogram of an fp16 or fp32 array; -0 counts as 0.

    An element counts as one, or as much as `weights` say.

    Raises:
        MILError: the array holds NaN or infinity.
    Shapes:
        array, weights: any, the same.
    """
    flat = array.reshape(-1)
    heavy = None if weights is None else weights.reshape(-1)
    count = _of_patterns if array.dtype == np.float16 else _of_values
    values, counts = count(flat, heavy)
    refuse_not_finite(flat, values)
    return Histogram(values=values, counts=counts.astype(np.float64))


def _of_patterns(
    flat: np.ndarray, heavy: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Counts the 16-bit patterns of fp16 values."""
    counts = _counted(_patterns(flat), heavy)
    counts[0] += counts[0x8000]
    counts[0x8000] = 0
    found = np.flatnonzero(counts)
    first_negative = np.searchsorted(found, 0x8000)  # of these the largest pattern is the least
    found = np.concatenate((found[first_negative:][::-1], found[:first_negative]))
    return found.astype(np.uint16).view(np.float16).astype(np.float64), counts[found]


def _counted(patterns: np.ndarray, heavy: np.ndarray | None) -> np.ndarray:
    """Returns how much each pattern counts, added up a slice at a time.

    Shapes:
        patterns: (n,), uint16; heavy: (n,); returns: (65536,), float64
    """
    counts = np.zeros(1 << 16)
    if heavy is None and (compiled := kernels(len(patterns))):
        for at in range(0, len(patterns), _COUNTED):
            tables = np.zeros((2, 1 << 16), np.uint32)
            compiled.count_patterns(patterns[at:at + _COUNTED], tables)
            counts += tables.sum(axis=0)
        return counts
    for at in range(0, len(patterns), _SLICE):
        weights = None if heavy is None else heavy[at:at + _SLICE]
        counts += np.bincount(patterns[at:at + _SLICE], weights, minlength=len(counts))
    return counts


def _patterns(flat: np.ndarray) -> np.ndarray:
    """Returns the bits of fp16 values; a copy where they do not lie at even addresses."""
    return np.require(flat.view(np.uint16), requirements=["C", "A"])


def _of_values(flat: np.ndarray, heavy: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if heavy is None:
        values, counts = np.unique(flat, return_counts=True)
    else:
        values, places = np.unique(flat, return_inverse=True)
        counts = np.bincount(places, heavy)
    return values.astype(np.float64), counts


def palette(found: Histogram, nbits: int, dtype: np.dtype) -> np.ndarray:
    """Returns the 2**nbits values, ascending, that are nearest to those of `found` in squared
    error.

    At most 65,536 distinct values: the optimum before the table is rounded to `dtype`. More (fp32
    only): the optimum of 65,536 bins, improved by Lloyd's steps. The last value fills a table that
    is longer than the distinct values.

    Shapes:
        returns: (2**nbits,)
    """
    size = 1 << nbits
    points = found if len(found.values) <= _MOST_POINTS else _binned(found)
    centres = points.values
    if len(centres) > size:
        centres = _means(points, best_cuts(points.values, points.counts, size)[:-1])
    if points is not found:
        centres = _lloyd(found, centres)
    table = np.full(size, centres[-1]).astype(dtype)
    table[:len(centres)] = centres
    return table


def nearest(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the index of the table entry nearest to each value, the lower one of two as near.

    Shapes:
        table: (k,), ascending; values: (n,); returns: (n,), uint8.
    """
    edges = table.astype(np.float64)
    return np.searchsorted((edges[:-1] + edges[1:]) / 2, values).astype(np.uint8)


def indices(table: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Returns the index of the table entry nearest to each element.

    Shapes:
        table: (k,), ascending; array: any; returns: as array, flat, uint8.
    """
    flat = array.reshape(-1)
    if array.dtype != np.float16:
        return nearest(table, flat)
    return _index_of_pattern(table)[_patterns(flat)]


def packed_indices(table: np.ndarray, array: np.ndarray, nbits: int) -> bytes | memoryview:
    """Returns the `indices` as a string of `nbits` bits each, as `pack_bits` has it.

    Shapes:
        table: (2**nbits,), ascending; array: any; returns ceil(size * nbits / 8) bytes.
    """
    compiled = kernels(array.size) if array.dtype == np.float16 else None
    if compiled is None:
        return packed(indices(table, array), nbits)
    found = np.empty(-(-array.size * nbits // 8), np.uint8)
    patterns = _patterns(array.reshape(-1))
    compiled.look_up_and_pack(patterns, _index_of_pattern(table), nbits, found)
    return found.data


def packed(chosen: np.ndarray, nbits: int) -> bytes | memoryview:
    """Returns indices below 2**nbits as `pack_bits` does, sooner.

    Shapes:
        chosen: any, uint8; returns ceil(size * nbits / 8) bytes.
    """
    compiled = kernels(chosen.size)
    if compiled is None:
        return pack_bits(chosen, nbits)
    found = np.empty(-(-chosen.size * nbits // 8), np.uint8)
    compiled.pack_indices(chosen.reshape(-1), np.arange(1 << 8, dtype=np.uint8), nbits, found)
    return found.data


def _index_of_pattern(table: np.ndarray) -> np.ndarray:
    """Returns the index of the table entry nearest to each fp16 number, by its bits.

    Shapes:
        returns: (65536,), uint8
    """
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return nearest(table, every.astype(np.float64))


def _means(points: Histogram, starts: np.ndarray) -> np.ndarray:
    """Returns the mean of each cluster, clusters being runs of the values."""
    weights = np.add.reduceat(points.counts, starts)
    return np.add.reduceat(points.values * points.counts, starts) / weights


def _binned(found: Histogram) -> Histogram:
    """Returns `found` with neighbours joined into at most 65,536 bins.

    The bins are as wide as suits the best centres: these are as dense as the cube root of the
    values' density is, so that a step from a value to the next counts as its width to the power
    2/3, times the cube root of how much is there. A step that counts for more than a bin, as one to
    a value far from all others, counts as one.

    Source:
        Panter and Dite, Quantization distortion in pulse-count modulation with nonuniform spacing
        of levels (1951): the density of the best centres.
    """
    steps = np.diff(found.values, prepend=found.values[0])
    steps = np.cbrt(steps / steps.max()) ** 2 * np.cbrt(found.counts / found.counts.max())
    width = steps.sum()
    for _ in range(_WIDTHS):
        width = np.minimum(steps, width).sum() / (_MOST_POINTS - 1)
    bins = np.floor(np.cumsum(np.minimum(steps / width, 1)))  # of whole bins the sum is exact
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    return Histogram(values=_means(found, starts), counts=np.add.reduceat(found.counts, starts))


def _lloyd(found: Histogram, centres: np.ndarray, steps: int = 20) -> np.ndarray:
    """`centres` after up to `steps` rounds of Lloyd's algorithm."""
    for _ in range(steps):
        edges = np.searchsorted(found.values, (centres[:-1] + centres[1:]) / 2, side="right")
        starts = np.unique(np.concatenate(([0], edges[edges < len(found.values)])))
        moved = _means(found, starts)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
