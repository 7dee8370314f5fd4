"""Linear quantization at run time."""

from __future__ import annotations

import torch

from sdbuild.mil.execute.ops._affine import along, dequantized
from sdbuild.mil.execute.ops._types import ByOutputDtype, T, U
from sdbuild.mil.execute.ops._values import CARRIERS


def dequantize(input: U, scale: T, zero_point: U | None = None, axis: int | None = None) -> T:
    return dequantized(input, zero_point, scale, axis)


def quantize(
    input: T, scale: T, output_dtype: str, zero_point: U | None = None, axis: int | None = None
) -> ByOutputDtype:
    """Rounds half to even, and keeps to the range of `output_dtype`."""
    steps = torch.round(input / along(scale, axis, input.ndim))
    if zero_point is not None:
        steps = steps + along(zero_point, axis, input.ndim)
    limits = torch.iinfo(CARRIERS[output_dtype])
    return steps.clamp(limits.min, limits.max).to(CARRIERS[output_dtype])
