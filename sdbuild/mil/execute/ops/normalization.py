"""Normalizations."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import T, U


def batch_norm(
    x: T, mean: U, variance: U, gamma: U | None = None, beta: U | None = None,
    epsilon: float = 1e-5,
) -> T:
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


def instance_norm(
    x: T, gamma: U | None = None, beta: U | None = None, epsilon: float = 1e-5
) -> T:
    return F.group_norm(x, x.shape[1], gamma, beta, epsilon)


def l2_norm(x: T, epsilon: float = 1e-6) -> T:
    """Divides by the norm over the last three dimensions."""
    return x / torch.sqrt((x * x).sum((-3, -2, -1), keepdim=True) + epsilon)


def layer_norm(
    x: T, axes: list[int] | None = None, gamma: U | None = None, beta: U | None = None,
    epsilon: float = 1e-5,
) -> T:
    """Normalizes over any axes; `gamma` and `beta` have just those, in the order of `x`."""
    axes = sorted(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    last = list(range(x.ndim - len(axes), x.ndim))
    shape = [x.shape[axis] for axis in axes]
    normal = F.layer_norm(x.movedim(axes, last), shape, gamma, beta, epsilon)
    return normal.movedim(last, axes)


def local_response_norm(
    x: T, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> T:
    return F.local_response_norm(x, size, alpha, beta, k)
