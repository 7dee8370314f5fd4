"""Tensors put together, taken apart, made, sorted and described."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import Any_, ByIndicesDtype, I, Int32, Moved, T
from sdbuild.mil.execute.ops._values import CARRIERS

_ZERO = torch.zeros(())
_ONE_INT = torch.ones((), dtype=torch.int32)
_ZERO_INT = torch.zeros((), dtype=torch.int32)


def argsort(x: T, axis: int = -1, ascending: bool = False) -> Int32:
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True).int()


def band_part(x: T, lower: int = -1, upper: int = -1) -> Moved[T]:
    """Keeps the diagonals from `lower` below to `upper` above the main one; -1 keeps all."""
    x = x if lower < 0 else x.triu(-lower)
    return x if upper < 0 else x.tril(upper)


def concat(values: list[T], axis: int, interleave: bool = False) -> Moved[T]:
    """Scalars, which have no axis, give a vector."""
    if not values[0].ndim:
        return torch.stack(values)
    if interleave:  # v0[0], v1[0], …, v0[1], v1[1], …
        axis %= values[0].ndim
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


def cumsum(x: T, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> T:
    x = x.flip(axis) if reverse else x
    out = torch.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        out = torch.cat([torch.zeros_like(out.narrow(axis, 0, 1)),
                         out.narrow(axis, 0, out.shape[axis] - 1)], axis)
    return out.flip(axis) if reverse else out


def fill(shape: list[int], value: T = _ZERO) -> Moved[T]:
    return value.expand(shape)


def fill_like(ref_tensor: Any_, value: T = _ZERO) -> Moved[T]:
    return value.expand(ref_tensor.shape)


def flatten2d(x: T, axis: int = 1) -> Moved[T]:
    return x.reshape(math.prod(x.shape[:axis]), -1)


def identity(x: T) -> Moved[T]:
    return x


def non_maximum_suppression(
    boxes: T, scores: T, iou_threshold: float, max_boxes: int,
    score_threshold: float | None = None, per_class_suppression: bool = False,
) -> tuple[Moved[T], Moved[T], Int32, Int32]:
    """Selects boxes by descending score, without those that overlap a better one too much.

    A box has the class and the score of its best score. iOS 15 and 16 have a score threshold, at
    least one box, and the number of boxes as the last result; from iOS 17 on, which has none of
    them, the boxes are on the last axis. What is left of the results is 0, or -1 in the indices.

    Shapes:
        boxes: (n, B, 4), centre x, centre y, width, height; scores: (n, B, K). (n, 4, B) and
        (n, K, B) from iOS 17 on. Returns them with B = max_boxes, then (n, max_boxes) and (n).
    Source:
        coremltools 9.0 (BSD-3-Clause), the reference in its tests of the operation.
    """
    is_boxes_last = score_threshold is None
    if is_boxes_last:
        boxes, scores = boxes.mT, scores.mT
    best, classes = scores.max(-1)  # (n, B, K) -> (n, B)
    indices = torch.full((boxes.shape[0], max_boxes), -1, dtype=torch.int32)
    counts = torch.zeros(boxes.shape[0], dtype=torch.int32)
    for n, overlaps in enumerate(_overlaps(boxes.float()) > iou_threshold):
        if per_class_suppression:
            overlaps = overlaps & (classes[n][:, None] == classes[n])
        wanted = best[n] >= (-math.inf if score_threshold is None else score_threshold)
        found = _best_apart(best[n], wanted, overlaps)[:max_boxes]
        if not found and not is_boxes_last:
            found = [int(best[n].argmax())]
        indices[n, :len(found)] = torch.tensor(found, dtype=torch.int32)
        counts[n] = len(found)
    rows = indices.long().clamp(min=0)[..., None]
    kept = [torch.take_along_dim(x, rows, 1).masked_fill(indices[..., None] < 0, 0)
            for x in (boxes, scores)]  # (n, B, …) -> (n, max_boxes, …)
    if is_boxes_last:
        return kept[0].mT, kept[1].mT, indices  # type: ignore[return-value]
    return kept[0], kept[1], indices, counts


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of each box with each, 0 for empty ones: (n, B, 4) -> (n, B, B)."""
    centres, sizes = boxes[..., :2], boxes[..., 2:]
    low, high = centres - sizes / 2, centres + sizes / 2
    inner = torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None],
                                                                           low[:, None])
    shared = inner.clamp(min=0).prod(-1)  # (n, B, B, 2) -> (n, B, B)
    areas = sizes.prod(-1)
    union = areas[:, :, None] + areas[:, None] - shared
    return torch.where(shared > 0, shared / union, 0)


def _best_apart(scores: Tensor, wanted: Tensor, overlaps: Tensor) -> list[int]:
    """The wanted ones by descending score, each without an overlap with one before it."""
    left, found = wanted.clone(), []
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if left[index]:
            found.append(index)
            left &= ~overlaps[index]
    return found


def non_zero(x: Any_) -> Int32:
    return x.nonzero().int()


def one_hot(
    indices: I, one_hot_vector_size: int, axis: int = -1, on_value: T = _ONE_INT,
    off_value: T = _ZERO_INT,
) -> Moved[T]:
    axis %= indices.ndim + 1
    positions = torch.arange(one_hot_vector_size).reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == positions, on_value, off_value)


def pad(x: T, pad: list[int], mode: str = "constant", constant_val: float = 0) -> Moved[T]:
    """Pads the last `len(pad) / 2` dimensions; `pad` has (before, after) for each of them."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        reverse = [size for pair in reversed(pairs) for size in pair]
        return F.pad(x, reverse, value=constant_val)
    for axis, (before, after) in enumerate(pairs, x.ndim - len(pairs)):
        x = x.index_select(axis, _padded_positions(x.shape[axis], before, after, mode))
    return x


def _padded_positions(size: int, before: int, after: int, mode: str) -> Tensor:
    """The position that each element of a padded axis is taken from."""
    positions = torch.arange(-before, size + after)
    if mode == "replicate":
        return positions.clamp(0, size - 1)
    if mode == "reflect":
        return size - 1 - (size - 1 - positions.abs()).abs()
    raise ValueError(f"mode {mode!r}")


def range_1d(start: T, end: T, step: T) -> T:
    numbers = start.item(), end.item(), step.item()
    return torch.arange(*numbers, dtype=start.dtype)


def shape(x: Any_) -> Int32:
    return torch.tensor(x.shape, dtype=torch.int32)


def split(
    x: T, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> list[Moved[T]]:
    if split_sizes is not None:
        return list(x.split(split_sizes, axis))
    if num_splits is None or x.shape[axis] % num_splits:
        raise ValueError(f"{x.shape[axis]} elements in {num_splits} equal parts")
    return list(x.split(x.shape[axis] // num_splits, axis))


def stack(values: list[T], axis: int) -> Moved[T]:
    return torch.stack(values, axis)


def tile(x: T, reps: list[int]) -> Moved[T]:
    return x.tile(reps)


def topk(
    x: T, k: int = 1, axis: int = -1, ascending: bool = False, sort: bool = True,
    return_indices: bool = True, output_indices_dtype: str = "int32",
) -> tuple[Moved[T], ByIndicesDtype]:
    """The first `k` (-1 for all) along `axis`, always sorted; the first of equal ones is first."""
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    values, indices = values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
    found = values, indices.to(CARRIERS[output_indices_dtype])
    return found if return_indices else found[:1]  # type: ignore[return-value]
