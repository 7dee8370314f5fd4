"""Convolutions in one, two and three dimensions."""

from __future__ import annotations

from torch.nn import functional as F

from sdbuild.mil.execute.ops._padding import padded, paddings
from sdbuild.mil.execute.ops._types import T, U

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: T, weight: U, bias: U | None = None, strides: list[int] | None = None,
    pad_type: str = "valid", pad: list[int] | None = None, dilations: list[int] | None = None,
    groups: int = 1,
) -> T:
    """Convolves `x`.

    Shapes:
        x: (B, C, *spatial); weight: (out, C / groups, *kernel); bias: (out,)
    """
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    before, after = paddings(x.shape[2:], reach, strides, pad_type, pad)
    if before != after:
        x, before = padded(x, before, after), [0] * rank
    return _CONV[rank](x, weight, bias, strides, before, dilations, groups)


def conv_transpose(
    x: T, weight: U, bias: U | None = None, pad: list[int] | None = None,
    output_shape: list[int] | None = None, pad_type: str = "valid",
    strides: list[int] | None = None, dilations: list[int] | None = None, groups: int = 1,
) -> T:
    """Convolves backwards: the full result is cropped by `pad`, or to `output_shape`.

    Shapes:
        x: (B, C, *spatial); weight: (C, out / groups, *kernel); bias: (out,)
    """
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    full = _CONV_TRANSPOSE[rank](x, weight, None, strides, 0, 0, groups, dilations)
    sizes = [full.shape[2 + i] for i in range(rank)]
    same = [x.shape[2 + i] * strides[i] for i in range(rank)] if pad_type == "same" else sizes
    before = [max(size - s, 0) // 2 for size, s in zip(sizes, same, strict=True)]
    after = [size - s - b for size, s, b in zip(sizes, same, before, strict=True)]
    if pad_type == "custom":
        before, after = list((pad or [0] * 2 * rank)[::2]), list((pad or [0] * 2 * rank)[1::2])
    if output_shape is not None:
        ends = zip(sizes, before, output_shape[2:], strict=True)
        after = [size - b - wanted for size, b, wanted in ends]
    out = padded(full, [-b for b in before], [-a for a in after])
    return out if bias is None else out + bias.reshape(-1, *[1] * rank)
