"""Elements taken from, and put to, places that are themselves data.

Negative indices count from the end in all opsets, and an index outside is an error; Core ML leaves
both open from iOS 17 on, unless `validate_indices` is set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdbuild.mil.execute.ops._types import I, Moved, T


def gather(
    x: T, indices: I, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Moved[T]:
    """Slices of `x` along `axis`; the first `batch_dims` dimensions are those of `indices`, too.

    Shapes:
        returns: x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1:]
    """
    axis %= x.ndim
    if batch_dims:
        pairs = zip(x, indices, strict=True)
        return torch.stack([gather(each, i, axis - 1, batch_dims - 1) for each, i in pairs])
    places = _positions(indices, x.shape[axis]).flatten()
    out = x.index_select(axis, places)
    return out.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1:]))


def gather_along_axis(
    x: T, indices: I, axis: int = 0, validate_indices: bool = False
) -> Moved[T]:
    return torch.gather(x, axis, _positions(indices, x.shape[axis]))


def gather_nd(
    x: T, indices: I, batch_dims: int = 0, validate_indices: bool = False
) -> Moved[T]:
    """The last dimension of `indices` addresses the first dimensions of `x` after the batch."""
    if batch_dims:
        pairs = zip(x, indices, strict=True)
        return torch.stack([gather_nd(each, i, batch_dims - 1) for each, i in pairs])
    return x[indices.long().unbind(-1)]


def scatter(
    data: T, indices: I, updates: T, axis: int = 0, mode: str = "add",
    validate_indices: bool = False,
) -> T:
    return _put(data, gather(_places(data), indices, axis), updates, mode)


def scatter_along_axis(
    data: T, indices: I, updates: T, axis: int = 0, mode: str = "add",
    validate_indices: bool = False,
) -> T:
    return _put(data, gather_along_axis(_places(data), indices, axis), updates, mode)


def scatter_nd(
    data: T, indices: I, updates: T, mode: str = "add", validate_indices: bool = False
) -> T:
    return _put(data, gather_nd(_places(data), indices), updates, mode)


def _positions(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices.long())


def _places(x: Tensor) -> Tensor:
    """The position of each element in the flat `x`."""
    return torch.arange(x.numel()).reshape(x.shape)


def _put(data: Tensor, places: Tensor, updates: Tensor, mode: str) -> Tensor:
    """A copy of `data` with `updates` combined into the elements at `places`, one by one."""
    flat, places, updates = data.flatten(), places.flatten(), updates.flatten()
    match mode:
        case "update":
            out = flat.index_copy(0, places, updates)
        case "add" | "sub":
            out = flat.index_add(0, places, updates, alpha=1 if mode == "add" else -1)
        case "mul" | "div":
            factors = updates if mode == "mul" else 1 / updates
            out = flat.scatter_reduce(0, places, factors, "prod")
        case "max" | "min":
            out = flat.scatter_reduce(0, places, updates, f"a{mode}")
        case _:
            raise ValueError(f"mode {mode!r}")
    return out.reshape(data.shape)
