"""Sources of normally distributed numbers: a file each, seeded, bit-equal to what hosts draw.

A host names those it has (`runtime/hosts`), so a new one is a file here and a word there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np


class Noise(Protocol):
    """A stream of normally distributed numbers; what is drawn depends on what was drawn before."""

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the next numbers, of this shape, as an array of one draw."""
        ...

    def singles(self, count: int) -> np.ndarray:
        """Returns the next numbers, drawn one by one, which some streams give otherwise than an
        array.

        Shapes:
            returns: (count,).
        """
        ...


def each(function: Callable[[float], float], values: Iterable[float]) -> np.ndarray:
    """Returns a function of each number, by the C library: numpy's own vectorized ones round
    otherwise.

    Shapes:
        values, returns: (n,).
    """
    return np.fromiter(map(function, values), np.float64)
