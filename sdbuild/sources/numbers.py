"""Tensors as numbers: their bytes decoded and encoded."""

from __future__ import annotations

import numpy as np

from sdbuild.errors import SourceError
from sdbuild.sources.tensors import Tensor

FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""The floats of safetensors that numpy knows; BF16 is the one beside them."""
_WHOLE = {"I64": "<i8", "I32": "<i4"}


def decoded(data: bytes, tensor: Tensor) -> np.ndarray:
    """A part of a tensor's bytes as numbers that numpy knows.

    Raises:
        SourceError: its type is none of F16, BF16, F32, F64, I32, I64.
    """
    if tensor.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    types = FLOATS | _WHOLE
    if tensor.dtype not in types:
        raise SourceError(f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected floats")
    return np.frombuffer(data, types[tensor.dtype])


def encoded(array: np.ndarray, dtype: str) -> bytes:
    """fp32 numbers in a type of safetensors; ties round to even."""
    if dtype == "BF16":
        bits = array.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(FLOATS[dtype]).tobytes()
