"""PyTorch's generator on NVIDIA's GPUs: Philox 4x32 with 10 rounds, Box and Muller's method.

Each array has an offset of its own, and each of its elements a counter.

Source:
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, for the rounds; the bits
    were compared with what apple/ml-stable-diffusion at e12202c draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdbuild.runtime.rng import each

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Stream:
    """The stream of `torch.Generator("cuda")`.

    Args:
        seed: below 2^64.
    """

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32)
        self._offset = 0

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the next numbers, of this shape, as doubles."""
        elements = np.arange(math.prod(shape), dtype=np.uint64)
        offsets = np.full(len(elements), self._offset, np.uint64)
        self._offset += 1
        return self._normals(offsets, elements).reshape(shape)

    def singles(self, count: int) -> np.ndarray:
        """Returns the next numbers, each the first element of an array of its own."""
        offsets = np.arange(self._offset, self._offset + count, dtype=np.uint64)
        self._offset += count
        return self._normals(offsets, np.zeros(count, np.uint64))

    def _normals(self, offsets: np.ndarray, elements: np.ndarray) -> np.ndarray:
        first, second = philox(offsets, elements, self._key)
        u = first / 2.0**32 + 1 / 2.0**33
        v = second * (math.pi / 2.0**31) + math.pi / 2.0**32
        return np.sqrt(-2 * each(math.log, u)) * each(math.sin, v)


def philox(
    offsets: np.ndarray, elements: np.ndarray, key: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first two of four words of each counter, as doubles.

    Shapes:
        offsets, elements: (n,); returns two of (n,).
    """
    zeros = np.zeros_like(offsets)
    counter = (offsets, zeros, elements, zeros)
    for number in range(_ROUNDS):
        keys = [np.uint64((k + number * step) & 0xFFFFFFFF)
                for k, step in zip(key, _WEYL, strict=True)]
        products = [counter[place] * np.uint64(multiplier)
                    for place, multiplier in zip((0, 2), _MULTIPLIERS, strict=True)]
        counter = (
            (products[1] >> _HALF) ^ counter[1] ^ keys[0], products[1] & _LOW,
            (products[0] >> _HALF) ^ counter[3] ^ keys[1], products[0] & _LOW,
        )
    return counter[0].astype(np.float64), counter[1].astype(np.float64)
