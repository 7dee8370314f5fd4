"""PyTorch's generator on a CPU, which diffusers' users seed with `torch.manual_seed`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Stream:
    """`torch.randn` with a generator.

    Args:
        seed: below 2^63.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the next numbers, of this shape, as floats."""
        return torch.randn(*shape, generator=self.generator).numpy()

    def singles(self, count: int) -> np.ndarray:
        """Returns the next numbers, as an array: PyTorch has no others."""
        return self.array((count,))
