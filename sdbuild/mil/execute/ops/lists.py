"""Lists: rows of tensors of one shape, which grow as they are written to.

A list is carried by one tensor, its elements along the first axis; what was never written is zero.
coremltools has these operations in its family of control flow. `dynamic_length` makes no
difference here: what Core ML does past the end of a list that may not grow is not known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdbuild.mil.execute.ops._types import ByDtype, Int32, Moved, T
from sdbuild.mil.execute.ops._values import CARRIERS


def make_list(
    elem_shape: list[Int32], init_length: int = 1, dynamic_length: bool = True,
    dtype: str = "fp32",
) -> ByDtype:
    """Zeros.

    Shapes:
        elem_shape: a scalar for each dimension; returns: (init_length, *elem_shape)
    """
    shape = [int(size) for size in elem_shape]
    return torch.zeros((init_length, *shape), dtype=CARRIERS[dtype])


def list_length(ls: T) -> Int32:
    return torch.tensor(len(ls), dtype=torch.int32)


def list_read(ls: T, index: Int32) -> Moved[T]:
    return ls.index_select(0, index.reshape(1)).squeeze(0)


def list_write(ls: T, index: Int32, value: T) -> Moved[T]:
    return list_scatter(ls, index.reshape(1), value.unsqueeze(0))


def list_gather(ls: T, indices: Int32) -> Moved[T]:
    return ls.index_select(0, indices)


def list_scatter(ls: T, indices: Int32, value: T) -> Moved[T]:
    """A list with `value` at `indices`, which is as long as the greatest of them needs.

    Shapes:
        ls: (length, *D); indices: (count,); value: (count, *D); returns: (grown length, *D)
    """
    length = max([len(ls), *(int(index) + 1 for index in indices)])
    return _grown(ls, length).index_copy_(0, indices.long(), value)


def _grown(ls: Tensor, length: int) -> Tensor:
    """A copy of `ls`, zeros behind it."""
    grown = ls.new_zeros((length, *ls.shape[1:]))
    grown[:len(ls)] = ls
    return grown
