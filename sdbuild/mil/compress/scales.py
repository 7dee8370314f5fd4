"""Scales of symmetric integers: the steps between them, and the nearest ones of numbers."""

from __future__ import annotations

import numpy as np

from sdbuild.mil.compress.packed_weights import magnitudes


def scales_of(blocked: np.ndarray, inner: tuple[int, ...], top: int) -> np.ndarray:
    """Returns the greatest magnitude of each block by `top`, so that no product with `top` is
    infinite.

    Where the type's numbers are coarse, below its normal ones, the next greater scale is taken if
    it loses less: a scale that is too small clips.

    Shapes:
        returns: as `blocked`, `inner` of size 1
    """
    largest = magnitudes(blocked, inner)
    limits = np.finfo(blocked.dtype)
    scales = (largest.astype(np.float32) / top).astype(blocked.dtype)
    scales[(scales == 0) & (largest > 0)] = limits.smallest_subnormal
    scales[largest == 0] = 1
    with np.errstate(over="ignore"):
        is_over = np.isinf((scales.astype(np.float32) * top).astype(blocked.dtype))
    scales[is_over] = np.nextafter(scales[is_over], blocked.dtype.type(0))
    is_coarse = scales < limits.smallest_normal
    if is_coarse.any():
        greater = np.where(is_coarse, np.nextafter(scales, limits.max), scales)
        is_better = _noise(blocked, greater, inner, top) < _noise(blocked, scales, inner, top)
        scales = np.where(is_better, greater, scales)
    return scales


def integers_of(blocked: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    """Returns the nearest multiples of the scales.

    Shapes:
        returns: float32, as `blocked`
    """
    return np.clip(np.rint(blocked.astype(np.float32) / scales.astype(np.float32)), -top, top)


def _noise(
    blocked: np.ndarray, scales: np.ndarray, inner: tuple[int, ...], top: int
) -> np.ndarray:
    """Returns the sum of the squares of what each block loses."""
    found = (integers_of(blocked, scales, top) * scales.astype(np.float32)).astype(blocked.dtype)
    return ((found.astype(np.float64) - blocked) ** 2).sum(inner, keepdims=True)
