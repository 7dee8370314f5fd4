"""Ratings: the best table of each width for a weight whose elements count differently, and what it
costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdbuild.mil.compress import feedback
from sdbuild.mil.compress.kmeans import histogram, nearest, palette

_LEAST_SHARE = np.float32(1e-3)
"""The weight added to every element's sensitivity, as a share of the mean."""

_ROWS = 128
"""Of a weight whose errors are looked at, where columns make up for each other's."""


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


def compensated_costs(
    array: np.ndarray, sensitivity: np.ndarray, tables: Sequence[np.ndarray], order: np.ndarray,
    factors: np.ndarray, variances: np.ndarray,
) -> list[float]:
    """Returns what each table costs where later columns make up for the errors of earlier ones.

    An error then costs as much as the part of its column's input that later columns' inputs do not
    tell. Some rows stand for all.

    Shapes:
        array, sensitivity: any, the same, rows first; tables: each (k,); order, factors: as of
        `feedback.indices`; variances: (columns,), in units of the mean square of the inputs.
    Source:
        Frantar et al., "GPTQ", 2022: the error of a row is the sum of (w - q)² / [U]ⱼⱼ².
    """
    matrix = array.reshape(len(array), -1)
    counts = sensitivity.reshape(matrix.shape).mean(1, dtype=np.float64) + _LEAST_SHARE
    drawn = np.linspace(0, len(matrix) - 1, min(len(matrix), _ROWS)).astype(int)
    costs = [(each.astype(np.float64)**2 * variances).sum(1)
             for each in feedback.errors(matrix[drawn], tables, order, factors)]
    return [float(counts.sum() * (counts[drawn] * cost).sum() / counts[drawn].sum())
            for cost in costs]
