"""The torch tensors that carry values of MIL's data types."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CARRIERS = {
    "bool": torch.bool, "fp16": torch.float32, "bf16": torch.float32, "fp32": torch.float32,
    "fp64": torch.float64, "int4": torch.int8, "int8": torch.int8, "int16": torch.int16,
    "int32": torch.int32, "int64": torch.int64, "uint1": torch.uint8, "uint2": torch.uint8,
    "uint3": torch.uint8, "uint4": torch.uint8, "uint6": torch.uint8, "uint8": torch.uint8,
    "uint16": torch.int32, "uint32": torch.int64, "uint64": torch.int64,
}
"""The torch type that carries each data type; it holds every value of it.

fp16 is carried by fp32, so that arithmetic is in fp32, as fast as it gets on a CPU.
"""

_NARROW = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MASKS = {"uint16": 0xFFFF, "uint32": 0xFFFF_FFFF}
ROUNDED = frozenset(_NARROW) | frozenset(_MASKS)
"""The data types whose carrier holds other values, too."""

_CHUNK = 1 << 20
"""Elements rounded at a time; measured: larger ones leave the cache, smaller ones cost calls."""


def rounded(value: Tensor, dtype: str, *, is_owned: bool) -> Tensor:
    """The nearest values of `dtype`, one of `ROUNDED`; written over `value` if it `is_owned`.

    In place because fresh memory costs more than the rounding: its pages are faulted in.

    Shapes:
        returns: as value
    """
    if dtype in _MASKS:
        return value & _MASKS[dtype]
    if not is_owned or not value.is_contiguous():
        return value.to(_NARROW[dtype]).to(value.dtype)
    if value.numel() <= _CHUNK:
        return value.copy_(value.to(_NARROW[dtype]))
    flat = value.view(-1)
    narrow = torch.empty(_CHUNK, dtype=_NARROW[dtype])
    for part in flat.split(_CHUNK):
        part.copy_(narrow[:part.numel()].copy_(part))
    return value


def carry(array: np.ndarray) -> Tensor:
    """A copy of `array` in the carrier of its type.

    Shapes:
        returns: as array
    """
    kind, bits = array.dtype.kind, array.dtype.itemsize * 8
    if kind == "u" and bits > 8:
        return torch.from_numpy(array.astype(np.int32 if bits == 16 else np.int64))
    return torch.from_numpy(array.astype(np.float32 if array.dtype == np.float16 else array.dtype))
