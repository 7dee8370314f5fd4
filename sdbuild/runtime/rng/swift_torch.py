"""PyTorch's generator on a CPU as Apple's Swift package has it, which is not quite PyTorch's.

The numbers are doubles, and where their count is no multiple of 16 the last 16 are others: PyTorch
draws them anew as floats of 24 bits, the package as doubles of 53.

Source:
    What apple/ml-stable-diffusion at e12202c draws; the method is that of Box and Muller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdbuild.runtime.rng import each

_BLOCK = 16


class Stream:
    """Mersenne Twister, in blocks of 16 numbers.

    Args:
        seed: below 2^32.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)
        self._kept: float | None = None

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the next numbers, of this shape, as doubles; fewer than 16 are drawn one by
        one."""
        count = math.prod(shape)
        if count < _BLOCK:
            return self.singles(count).reshape(shape)
        values = (self._words(count) & 0xFFFFFF) / 2.0**24
        whole = count - count % _BLOCK
        values[:whole] = _box_muller(values[:whole])
        if whole < count:
            values[-_BLOCK:] = _box_muller(self._doubles(_BLOCK))
        return values.reshape(shape)

    def singles(self, count: int) -> np.ndarray:
        """Returns the next numbers; of each pair that is drawn, the second is kept for the next
        call."""
        found: list[float] = []
        while len(found) < count:
            if self._kept is not None:
                found.append(self._kept)
                self._kept = None
                continue
            u1, u2 = self._doubles(2)
            radius, angle = math.sqrt(-2 * math.log(1 - u2)), 2 * math.pi * u1
            found.append(radius * math.cos(angle))
            self._kept = radius * math.sin(angle)
        return np.array(found)

    def _words(self, count: int) -> np.ndarray:
        return self._state.randint(0, 1 << 32, count, np.uint32)

    def _doubles(self, count: int) -> np.ndarray:
        words = self._words(2 * count).astype(np.uint64)
        joined = (words[::2] << np.uint64(32)) | words[1::2]
        return (joined & np.uint64((1 << 53) - 1)) / 2.0**53


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers of uniform ones, whose count is a multiple of 16."""
    blocks = uniform.reshape(-1, 2, _BLOCK // 2)  # -> (blocks, radius or angle, 8)
    radius = np.sqrt(-2 * each(math.log, 1 - blocks[:, 0].ravel()))
    angles = 2 * math.pi * blocks[:, 1].ravel()
    pairs = [radius * each(f, angles) for f in (math.cos, math.sin)]
    return np.stack([p.reshape(-1, _BLOCK // 2) for p in pairs], axis=1).ravel()
