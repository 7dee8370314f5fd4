"""Constant values as numpy arrays, and the bit strings that sub-byte types are packed in.

Values of whole-byte types are views: of the immediate bytes, or of the mapped weight file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.files.package import MODEL_PATH, Model
from sdbuild.mil.ir.dtype import DTYPES, packed_bytes
from sdbuild.mil.ir.program import Blob, TensorType, Value

_GROUP = 8
"""Elements packed at a time: eight elements of n bits fill n bytes."""

_NUMPY = {
    "bool": "?", "fp16": "<f2", "fp32": "<f4", "fp64": "<f8", "bf16": "<u2",
    "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
}


def to_array(model: Model | None, value: Value) -> np.ndarray:
    """Returns the elements of `value`; read-only, and `model` is needed only for those in a weight
    file.

    Sub-byte types come as int8 or uint8, bf16 as float32, strings as numpy strings.

    Raises:
        InvalidProgram: the value is no tensor of known shape, or its data does not fill it.
    Shapes:
        returns: the shape of the value's type.
    """
    kind = value.type
    if not isinstance(kind, TensorType) or kind.count is None:
        raise InvalidProgram(f"a constant of type {kind}, expected a tensor of known shape")
    if kind.dtype == "string" and isinstance(value.data, tuple):
        return _shaped(np.array(value.data, dtype=str), kind)
    data = _packed(model, value.data, kind)
    return _shaped(from_packed(data, kind.dtype, kind.count), kind)


def _shaped(array: np.ndarray, kind: TensorType) -> np.ndarray:
    try:
        return array.reshape(kind.dims)
    except ValueError as error:  # a wrong count of strings, too many or too large dimensions
        raise InvalidProgram(f"a constant of {array.size} elements: {error}: {kind}") from error


def _packed(
    model: Model | None, data: bytes | Blob | tuple[Any, ...], kind: TensorType
) -> memoryview:
    """Returns the packed bytes of a tensor, as many as its type takes."""
    where = "in place"
    if isinstance(data, Blob):
        where = f"in {data.file.removeprefix(f'{MODEL_PATH}/')} at offset {data.offset}"
        if model is None:
            raise InvalidProgram(f"a constant {where}, but there is no model to read it from")
        record = model.reader(data.file).record(data.offset)
        if record.dtype != kind.dtype:
            raise InvalidProgram(f"a constant {where}: found {record.dtype}, expected {kind}")
        packed = model.blob(data)
    elif isinstance(data, bytes):
        packed = memoryview(data)
    else:
        raise InvalidProgram(f"a constant {where} is not packed: {kind}")
    expected = packed_bytes(kind.dtype, kind.count or 0)
    if len(packed) != expected:
        raise InvalidProgram(
            f"a constant {where}: {len(packed)} bytes, expected {expected}: {kind}")
    return packed


def from_packed(data: bytes | memoryview, dtype: str, count: int) -> np.ndarray:
    """Returns the `count` elements of `dtype` that `data` holds; a view if they are whole bytes.

    Shapes:
        returns: (count,)
    """
    if dtype in _NUMPY:
        array = np.frombuffer(data, _NUMPY[dtype], count)
        return (array.astype("<u4") << 16).view("<f4") if dtype == "bf16" else array
    bits = DTYPES[dtype].bits
    array = unpack_bits(data, bits, count)
    if dtype.startswith("int"):
        sign = 1 << (bits - 1)
        array = ((array ^ sign) - sign).view(np.int8)  # two's complement: wraps as meant
    return array


def pack_bits(array: np.ndarray, bits: int) -> bytes:
    """Returns the lowest `bits` bits of each element, as one string of bits, the lowest first.

    Raises:
        InvalidProgram: an element does not fit.
    Shapes:
        array: any, of integers; returns ceil(size * bits / 8) bytes.
    """
    flat = array.reshape(-1)
    low = -(1 << (bits - 1)) if flat.dtype.kind == "i" else 0
    if flat.size and not (low <= flat.min() and flat.max() < 1 << bits):
        raise InvalidProgram(f"values {flat.min()} to {flat.max()} do not fit in {bits} bits")
    padded = np.zeros(-(-flat.size // _GROUP) * _GROUP, np.uint8)
    padded[:flat.size] = flat.astype(np.uint8) & ((1 << bits) - 1)
    columns = padded.reshape(-1, _GROUP)
    words = np.zeros(len(columns), "<u8")
    for position in range(_GROUP):
        words |= columns[:, position].astype("<u8") << np.uint64(position * bits)
    packed = words.view(np.uint8).reshape(-1, _GROUP)[:, :bits].tobytes()
    return packed[:math.ceil(flat.size * bits / 8)]


def unpack_bits(data: bytes | memoryview, bits: int, count: int) -> np.ndarray:
    """Returns the first `count` elements of a string of bits, the inverse of `pack_bits`.

    Raises:
        InvalidProgram: there are fewer bits than that.
    Shapes:
        returns: (count,), of uint8
    """
    groups = -(-count // _GROUP)
    packed = np.frombuffer(data, np.uint8)
    if packed.size * 8 < count * bits:
        raise InvalidProgram(f"{packed.size} bytes, expected {count} elements of {bits} bits")
    padded = np.zeros(groups * bits, np.uint8)
    padded[:min(packed.size, padded.size)] = packed[:padded.size]
    words = np.zeros((groups, _GROUP), np.uint8)
    words[:, :bits] = padded.reshape(groups, bits)
    words = words.view("<u8")  # (groups, 8) -> (groups, 1)
    elements = np.empty((groups, _GROUP), np.uint8)
    for position in range(_GROUP):
        shifted = words[:, 0] >> np.uint64(position * bits)
        elements[:, position] = shifted & np.uint64((1 << bits) - 1)
    return elements.reshape(-1)[:count]
