"""Reductions over some axes, all of them if none are given."""

from __future__ import annotations

import torch
from torch import Tensor

from sdbuild.mil.execute.ops._types import ByOutputDtype, Moved, T
from sdbuild.mil.execute.ops._values import CARRIERS


def reduce_argmax(
    x: T, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> ByOutputDtype:
    return torch.argmax(x, axis, keep_dims).to(CARRIERS[output_dtype])


def reduce_argmin(
    x: T, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> ByOutputDtype:
    return torch.argmin(x, axis, keep_dims).to(CARRIERS[output_dtype])


def reduce_l1_norm(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return reduce_sum(x.abs(), axes, keep_dims)


def reduce_l2_norm(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return torch.sqrt(reduce_sum_square(x, axes, keep_dims)).to(x.dtype)


def reduce_log_sum(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return torch.log(reduce_sum(x, axes, keep_dims)).to(x.dtype)


def reduce_log_sum_exp(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return torch.logsumexp(x, _axes(x, axes), keep_dims).to(x.dtype)


def reduce_max(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> Moved[T]:
    return torch.amax(x, _axes(x, axes), keep_dims)


def reduce_mean(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return torch.mean(x, _axes(x, axes), keep_dims, dtype=torch.float32).to(x.dtype)


def reduce_min(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> Moved[T]:
    return torch.amin(x, _axes(x, axes), keep_dims)


def reduce_prod(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    for axis in _axes(x, axes):
        x = torch.prod(x, axis, keepdim=True, dtype=x.dtype)
    return x if keep_dims else x.squeeze(_axes(x, axes))


def reduce_sum(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return torch.sum(x, _axes(x, axes), keep_dims, dtype=x.dtype)


def reduce_sum_square(x: T, axes: list[int] | None = None, keep_dims: bool = False) -> T:
    return reduce_sum(x * x, axes, keep_dims)


def _axes(x: Tensor, axes: list[int] | None) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axes is None else tuple(axes)
