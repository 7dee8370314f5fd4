"""Ratings: the best table of each width for a weight whose elements count differently, and what it
costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdbuild.mil.compress.kmeans import histogram, nearest, palette

_LEAST_SHARE = np.float32(1e-3)
"""The weight added to every element's sensitivity, as a share of the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A table of some bits, and its cost: the sum of squared errors, each times how much it
    counts.

    Shapes:
        table: (2**bits,), ascending, in the type of the weight.
    """

    bits: int
    cost: float
    table: np.ndarray


def ratings(
    array: np.ndarray, sensitivity: np.ndarray, widths: Sequence[int]
) -> tuple[Rating, ...]:
    """Returns the rating of each width.

    Raises:
        MILError: the array holds NaN or infinity.
    Shapes:
        array, sensitivity: any, the same; the sensitivity is in units of its mean.
    """
    counted = histogram(array, sensitivity.astype(np.float32) + _LEAST_SHARE)
    found = []
    for bits in widths:
        table = palette(counted, bits, array.dtype)
        errors = counted.values - table[nearest(table, counted.values)].astype(np.float64)
        found.append(Rating(bits=bits, cost=float((counted.counts * errors**2).sum()),
                            table=table))
    return tuple(found)
