"""Products of matrices."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import Mixed, T, U


def linear(x: T, weight: U, bias: U | None = None) -> T:
    """A weight may be of another type than `x`, which decides that of the result."""
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def matmul(x: Mixed, y: Mixed, transpose_x: bool = False, transpose_y: bool = False) -> Mixed:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def einsum(values: list[T], equation: str) -> T:
    return torch.einsum(equation, values)
