"""Other shapes for the same elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import Any_, Moved, T


def expand_dims(x: T, axes: list[int]) -> Moved[T]:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def reshape(x: T, shape: list[int]) -> Moved[T]:
    """A size of 0 keeps that of `x` at the same place from the right, or is 1 if there is none."""
    kept = [1] * max(len(shape) - x.ndim, 0) + list(x.shape)
    kept = kept[len(kept) - len(shape):]
    return x.reshape([size or keep for size, keep in zip(shape, kept, strict=True)])


def reshape_like(
    x: T, ref_tensors: list[Any_], begins: list[Any_], ends: list[Any_], end_masks: list[Any_]
) -> Moved[T]:
    """The shape is put together from a range of the dimensions of each `ref_tensors`."""
    shape: list[int] = []
    for like, begin, end, is_open in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += like.shape[int(begin):None if is_open else int(end)]
    return x.reshape(shape)


def reverse(x: T, axes: list[int] | None = None) -> Moved[T]:
    return x.flip(list(range(x.ndim)) if axes is None else axes)


def reverse_sequence(
    x: T, lengths: Any_, seq_axis: int = 0, batch_axis: int = 0
) -> Moved[T]:
    """Turns round the first `lengths[i]` elements along `seq_axis`, for each batch `i`."""
    out = x.clone()
    batches = out.movedim((batch_axis, seq_axis), (0, 1))  # a view: writing to it writes to out
    for batch, length in zip(batches, lengths.tolist(), strict=True):
        batch[:length] = batch[:length].flip(0)
    return out


def slice_by_index(
    x: T, begin: list[int], end: list[int], stride: list[int] | None = None,
    begin_mask: list[bool] | None = None, end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Moved[T]:
    """Slices as numpy does: `x[begin:end:stride]` for each axis.

    `begin_mask` and `end_mask` leave the bound open; `squeeze_mask` takes the one element at
    `begin` and drops the axis.
    """
    for axis in reversed(range(x.ndim)):
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        if squeeze_mask and squeeze_mask[axis]:
            x = x.select(axis, first or 0)
            continue
        last = None if end_mask and end_mask[axis] else end[axis]
        x = _slice(x, axis, slice(first, last, stride[axis] if stride else 1))
    return x


def _slice(x: Tensor, axis: int, part: slice) -> Tensor:
    if part.step < 0:  # torch has no slices that run backwards
        positions = range(*part.indices(x.shape[axis]))
        return x.index_select(axis, torch.tensor(positions, dtype=torch.long))
    return x[(slice(None),) * axis + (part,)]


def slice_by_size(x: T, begin: list[int], size: list[int]) -> Moved[T]:
    """A size of -1 takes all the rest."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first %= x.shape[axis] or 1
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


def slice_update(
    x: T, update: T, begin: list[int], end: list[int], stride: list[int] | None = None,
    begin_mask: list[bool] | None = None, end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Moved[T]:
    """A copy of `x` with `update` in the place that `slice_by_index` would take."""
    places = torch.arange(x.numel()).reshape(x.shape)
    places = slice_by_index(places, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    out = x.flatten().index_copy(0, places.flatten(), update.expand(places.shape).flatten())
    return out.reshape(x.shape)


def squeeze(x: T, axes: list[int] | None = None) -> Moved[T]:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def transpose(x: T, perm: list[int]) -> Moved[T]:
    return x.permute(perm)


def sliding_windows(x: T, axis: int, size: int, stride: int = 1) -> Moved[T]:
    axis %= x.ndim
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)  # (…, n, …) -> (…, windows, size, …)


def depth_to_space(x: T, block_size: int) -> Moved[T]:
    batch, channels, height, width = x.shape
    out = x.reshape(batch, block_size, block_size, channels // block_size**2, height, width)
    out = out.permute(0, 3, 4, 1, 5, 2)  # (B, bh, bw, C, H, W) -> (B, C, H, bh, W, bw)
    return out.reshape(batch, -1, height * block_size, width * block_size)


def space_to_depth(x: T, block_size: int) -> Moved[T]:
    batch, channels, height, width = x.shape
    height, width = height // block_size, width // block_size
    out = x.reshape(batch, channels, height, block_size, width, block_size)
    out = out.permute(0, 3, 5, 1, 2, 4)  # (B, C, H, bh, W, bw) -> (B, bh, bw, C, H, W)
    return out.reshape(batch, channels * block_size**2, height, width)


def pixel_shuffle(x: T, upscale_factor: int) -> Moved[T]:
    return F.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(x: T, downscale_factor: int) -> Moved[T]:
    return F.pixel_unshuffle(x, downscale_factor)


def space_to_batch(x: T, block_shape: list[int], paddings: list[list[int]]) -> Moved[T]:
    (top, bottom), (left, right) = paddings
    x = F.pad(x, (left, right, top, bottom))
    batch, channels, height, width = x.shape
    block_h, block_w = block_shape
    out = x.reshape(batch, channels, height // block_h, block_h, width // block_w, block_w)
    out = out.permute(3, 5, 0, 1, 2, 4)  # (B, C, H, bh, W, bw) -> (bh, bw, B, C, H, W)
    return out.reshape(-1, channels, height // block_h, width // block_w)


def batch_to_space(x: T, block_shape: list[int], crops: list[list[int]]) -> Moved[T]:
    block_h, block_w = block_shape
    (top, bottom), (left, right) = crops
    batch, channels, height, width = x.shape
    batch //= math.prod(block_shape)
    out = x.reshape(block_h, block_w, batch, channels, height, width)
    out = out.permute(2, 3, 4, 0, 5, 1)  # (bh, bw, B, C, H, W) -> (B, C, H, bh, W, bw)
    out = out.reshape(batch, channels, height * block_h, width * block_w)
    return F.pad(out, (-left, -right, -top, -bottom))
