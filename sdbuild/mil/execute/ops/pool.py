"""Pooling over windows, in one, two and three dimensions."""

from __future__ import annotations

from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.execute.ops._padding import padded, paddings
from sdbuild.mil.execute.ops._types import T

_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def avg_pool(
    x: T, kernel_sizes: list[int], strides: list[int] | None = None, pad_type: str = "valid",
    pad: list[int] | None = None, exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> T:
    strides = strides or [1] * len(kernel_sizes)
    before, after, more = _windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    counted = torch.ones_like(x[:1, :1])
    counted = padded(counted, before, after, 0 if exclude_padding_from_average else 1)
    pool = _AVG_POOL[len(kernel_sizes)]
    total = pool(padded(padded(x, before, after), [0] * len(more), more), kernel_sizes, strides)
    return total / pool(padded(counted, [0] * len(more), more), kernel_sizes, strides)


def l2_pool(
    x: T, kernel_sizes: list[int], strides: list[int] | None = None, pad_type: str = "valid",
    pad: list[int] | None = None, ceil_mode: bool = False,
) -> T:
    """The square root of the sum of squares in each window."""
    strides = strides or [1] * len(kernel_sizes)
    before, after, more = _windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares = padded(padded(x * x, before, after), [0] * len(more), more)
    mean = _AVG_POOL[len(kernel_sizes)](squares, kernel_sizes, strides)
    return torch.sqrt(mean * prod(kernel_sizes))


def max_pool(
    x: T, kernel_sizes: list[int], strides: list[int] | None = None, pad_type: str = "valid",
    pad: list[int] | None = None, ceil_mode: bool = False,
) -> T:
    strides = strides or [1] * len(kernel_sizes)
    before, after, more = _windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    wide = padded(padded(x, before, after, -inf), [0] * len(more), more, -inf)
    return _MAX_POOL[len(kernel_sizes)](wide, kernel_sizes, strides)


def _windows(
    x: Tensor, kernel: list[int], strides: list[int], pad_type: str, pad: list[int] | None,
    ceil_mode: bool,
) -> tuple[list[int], list[int], list[int]]:
    """Padding before and after, and what the last window needs more in `ceil_mode`."""
    sizes = x.shape[2:]
    before, after = paddings(sizes, kernel, strides, pad_type, pad)
    more = [0] * len(sizes)
    for i, size in enumerate(sizes if ceil_mode else ()):
        padded_size = size + before[i] + after[i]
        count = -(-(padded_size - kernel[i]) // strides[i]) + 1
        if (count - 1) * strides[i] >= size + before[i]:
            count -= 1  # no window starts in the padding after
        more[i] = max((count - 1) * strides[i] + kernel[i] - padded_size, 0)
    return before, after, more
