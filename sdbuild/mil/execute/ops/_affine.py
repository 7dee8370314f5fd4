"""Linear quantization, for weights and at run time."""

from __future__ import annotations

from torch import Tensor


def dequantized(data: Tensor, zero_point: Tensor | None, scale: Tensor, axis: int | None) -> Tensor:
    """(data - zero_point) * scale, where vectors lie along `axis`."""
    shifted = data.float()
    if zero_point is not None:
        shifted = shifted - along(zero_point, axis, data.ndim)
    return shifted * along(scale, axis, data.ndim)


def along(values: Tensor, axis: int | None, rank: int) -> Tensor:
    """A scalar as it is, a vector so that it broadcasts along `axis`."""
    if values.ndim == 0 or axis is None:
        return values
    return values.reshape(-1, *[1] * (rank - 1 - axis % rank))
