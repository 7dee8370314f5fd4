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
                hint="it may be a quantized file: use the fp16 or bf16 file of the same model",
            )


_NON_FINITE = {"F16": ("i2", 0x7C00), "BF16": ("i2", 0x7F80), "F32": ("i4", 0x7F80_0000),
               "F64": ("i8", 0x7FF0_0000_0000_0000)}
"""The bits of infinity. Those of NaN are above them, and no finite number's are; the sign is the
highest bit. So two maxima, of the bits with a sign and without, find both, faster than decoding.
"""


def expect_finite(tensor: Tensor, data: bytes) -> None:
    """Makes sure that some of a tensor's bytes are no NaN or infinity; of floats only.

    Raises:
        SourceError: they are.
    """
    if tensor.dtype in _NON_FINITE and not is_finite(tensor.dtype, data):
        raise SourceError(
            f"{tensor.file}: the tensor {tensor.name} holds NaN or infinity",
            hint="the file is damaged, or was saved from a run that diverged",
        )


def is_finite(dtype: str, data: bytes) -> bool:
    """Whether floats of a type, BF16 or one of `FLOATS`, are neither NaN nor infinity."""
    kind, infinity = _NON_FINITE[dtype]
    signed = np.frombuffer(data, f"<{kind}")
    unsigned = signed.view(f"<u{signed.itemsize}")
    negative = 1 << (8 * signed.itemsize - 1)
    return (int(signed.max(initial=0)) < infinity
            and int(unsigned.max(initial=0)) < infinity + negative)


def decoded(data: bytes, tensor: Tensor, types: Mapping[str, str] = FLOATS) -> np.ndarray:
    """Returns a part of a tensor's bytes as numbers that numpy knows.

    Raises:
        SourceError: its type is neither BF16 nor among `types`.
    Shapes:
        returns: (elements,), as many as `data` holds.
    """
    if tensor.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    if tensor.dtype not in types:
        raise SourceError(f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected floats")
    return np.frombuffer(data, types[tensor.dtype])


def to_array(tensor: Tensor, types: Mapping[str, str] = FLOATS) -> np.ndarray:
    """Returns all of a tensor, in its shape.

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
