"""Compressed weights made dense, when a program is loaded.

iOS 16 has them as attributes, flat and packed; iOS 18 as arguments of sub-byte types.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdbuild.mil.execute.ops._affine import dequantized
from sdbuild.mil.execute.ops._types import Any_, ByOutputDtype, I, Mask, Moved, T, U, V
from sdbuild.mil.execute.ops._values import CARRIERS
from sdbuild.mil.files.arrays import unpack_bits


def constexpr_affine_dequantize(quantized_data: U, zero_point: V, scale: T, axis: int) -> T:
    return dequantized(quantized_data, zero_point, scale, axis)


def constexpr_cast(source_val: Any_, output_dtype: str) -> ByOutputDtype:
    return source_val.to(CARRIERS[output_dtype])


def constexpr_lut_to_dense(
    indices: I, lut: T, shape: list[int] | None = None, vector_axis: int | None = None
) -> Moved[T]:
    """Looks each index up in its table.

    Shapes:
        iOS 16: indices: packed bytes; lut: (2**nbits,); returns `shape`
        iOS 18: lut: (*groups, 2**nbits, vector), each group a factor of the size of `indices`
    """
    if shape is None:
        return _grouped_lookup(indices, lut, vector_axis)
    nbits = int(math.log2(lut.numel()))
    flat = torch.from_numpy(unpack_bits(indices.numpy(), nbits, math.prod(shape)))
    return lut[flat.int()].reshape(shape)


def _grouped_lookup(indices: Tensor, lut: Tensor, vector_axis: int | None) -> Tensor:
    groups, (entries, vector) = lut.shape[:-2], lut.shape[-2:]
    table = torch.arange(math.prod(groups), dtype=torch.int32).reshape(groups)
    table = _blockwise(table, indices.shape)  # the number of the table of each index
    found = lut.reshape(-1, vector)[table * entries + indices]  # (*indices, vector)
    if vector == 1:
        return found.squeeze(-1)
    axis = (vector_axis or 0) % indices.ndim
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _blockwise(values: Tensor, shape: torch.Size) -> Tensor:
    """`values`, each repeated over its block, so that they fill `shape`."""
    for axis, size in enumerate(shape):
        if values.shape[axis] not in (1, size):
            values = values.repeat_interleave(size // values.shape[axis], axis)
    return values


def constexpr_sparse_to_dense(
    nonzero_data: T, mask: I, shape: list[int] | None = None
) -> Moved[T]:
    """Puts the values where the mask is set, zeros elsewhere; iOS 16 packs the mask."""
    if shape is not None:
        bits = unpack_bits(mask.numpy(), 1, math.prod(shape))
        mask = torch.from_numpy(bits).reshape(shape)
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense


def constexpr_blockwise_shift_scale(data: U, scale: T, offset: V | None = None) -> T:
    """(data - offset) * scale, where each of them stands for a block of `data`."""
    shifted = data.float()
    if offset is not None:
        shifted = shifted - _blockwise(offset, data.shape)
    return shifted * _blockwise(scale, data.shape)


def constexpr_lut_to_sparse(
    indices_mask: Mask, indices_nonzero_data: I, lut: T, vector_axis: int | None = None
) -> tuple[Mask, Moved[T]]:
    """Looks up the indices that the mask is set for; with vectors, the mask grows with them."""
    indices = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    dense = _grouped_lookup(indices, lut, vector_axis)
    mask = _blockwise(indices_mask, dense.shape).expand(dense.shape)
    return mask, dense[mask.bool()]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Mask, nonzero_data: U, scale: T, offset: V | None = None
) -> tuple[Mask, T]:
    """`constexpr_blockwise_shift_scale` of the elements that the mask is set for."""
    data = constexpr_sparse_to_dense(nonzero_data, data_mask)
    dense = constexpr_blockwise_shift_scale(data, scale, offset)
    return data_mask, dense[data_mask.bool()]
