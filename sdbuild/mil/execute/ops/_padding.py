"""Padding of spatial dimensions, for convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def paddings(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], pad_type: str,
    pad: list[int] | None,
) -> tuple[list[int], list[int]]:
    """The padding before and after each spatial dimension.

    `reach` is the extent of the dilated kernel. "same" gives ceil(size / stride) elements, and
    puts an odd one after, "same_lower" before.
    """
    if pad_type == "valid":
        return [0] * len(sizes), [0] * len(sizes)
    if pad_type == "custom":
        pad = pad or [0] * 2 * len(sizes)
        return list(pad[::2]), list(pad[1::2])
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"pad_type {pad_type!r}")
    total = [max((-(-n // s) - 1) * s + r - n, 0)
             for n, r, s in zip(sizes, reach, strides, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if pad_type == "same" else (more, less)


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0) -> Tensor:
    """`x` with its last dimensions padded, or cropped where the padding is negative."""
    pairs = zip(reversed(before), reversed(after), strict=True)  # torch wants the last one first
    return F.pad(x, [size for pair in pairs for size in pair], value=value)
