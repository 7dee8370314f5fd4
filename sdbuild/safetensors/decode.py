"""Tensors as numbers: their bytes decoded and encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.safetensors.tensors import Tensor

FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""The floats of safetensors that numpy knows; BF16 is the one beside them."""

NUMBERS = FLOATS | {"I64": "<i8", "I32": "<i4"}
"""These and the whole numbers that may stand where one float does."""


def expect_floats(tensors: Iterable[Tensor]) -> None:
    """Makes sure that weights are floats.

    Raises:
        SourceError: one is something else, such as the whole numbers of a quantized file.
    """
    for tensor in tensors:
        if tensor.dtype not in FLOATS and tensor.dtype != "BF16":
            raise SourceError(
                f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected floats",
                hint="it may be a quantized file: take the fp16 or bf16 file of the same model",
            )


def decoded(data: bytes, tensor: Tensor, types: Mapping[str, str] = FLOATS) -> np.ndarray:
    """A part of a tensor's bytes as numbers that numpy knows.

    Raises:
        SourceError: its type is neither BF16 nor among `types`.
    """
    if tensor.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    if tensor.dtype not in types:
        raise SourceError(f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected floats")
    return np.frombuffer(data, types[tensor.dtype])


def whole(tensor: Tensor, types: Mapping[str, str] = FLOATS) -> np.ndarray:
    """All of a tensor, in its shape.

    Raises:
        SourceError: its type is neither BF16 nor among `types`.
    """
    return decoded(b"".join(tensor.chunks()), tensor, types).reshape(tensor.shape)


def encoded(array: np.ndarray, dtype: str) -> bytes:
    """fp32 numbers in a type of safetensors; ties round to even."""
    if dtype == "BF16":
        bits = array.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(FLOATS[dtype]).tobytes()
