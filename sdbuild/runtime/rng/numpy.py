"""NumPy's legacy generator, which `numpy.random.seed` seeds: Mersenne Twister, polar method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Stream:
    """`numpy.random.RandomState`, whose stream NumPy promises never to change (NEP 19).

    Args:
        seed: of which the last 32 bits count, as NumPy has no more.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed % (1 << 32))

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the next numbers, of this shape, as doubles."""
        return self._state.standard_normal(tuple(shape))

    def singles(self, count: int) -> np.ndarray:
        """Returns the next numbers, the same as those of an array."""
        return self._state.standard_normal(count)
