"""The data types of ML Programs, under the names that MIL text uses."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DType:
    """One data type, and its spelling in each place that stores it.

    Units:
        bits: per element, packed.
    Source:
        `MIL.proto` (enum `DataType`), `docs/formats/weights.md` (blob codes), the `metadata.json`
        of compiled models (`metadata_name`), and for `field`, where constants outside weight files
        are stored, `_tensor_field_by_type` of coremltools 9.0
        (`converters/mil/backend/mil/helper.py`, BSD-3-Clause).
    """

    name: str
    bits: int
    proto: int
    blob: int | None = None
    field: str = "bytes"
    format: str | None = None
    metadata_name: str | None = None


_ALL = (
    DType(name="bool", bits=8, proto=1, field="bools", format="?"),
    DType(name="string", bits=0, proto=2, field="strings"),
    DType(name="fp16", bits=16, proto=10, blob=1, format="e", metadata_name="Float16"),
    DType(name="fp32", bits=32, proto=11, blob=2, field="floats", format="f",
          metadata_name="Float32"),
    DType(name="fp64", bits=64, proto=12, field="doubles", format="d", metadata_name="Double"),
    DType(name="bf16", bits=16, proto=13, blob=5, metadata_name="BFloat16"),
    DType(name="int8", bits=8, proto=21, blob=4, format="b", metadata_name="Int8"),
    DType(name="int16", bits=16, proto=22, blob=6, field="ints", format="h",
          metadata_name="Int16"),
    DType(name="int32", bits=32, proto=23, blob=14, field="ints", format="i",
          metadata_name="Int32"),
    DType(name="int64", bits=64, proto=24, field="longInts", format="q", metadata_name="Int64"),
    DType(name="int4", bits=4, proto=25, blob=8, metadata_name="Int4"),
    DType(name="uint8", bits=8, proto=31, blob=3, format="B", metadata_name="UInt8"),
    DType(name="uint16", bits=16, proto=32, blob=7, field="ints", format="H",
          metadata_name="UInt16"),
    DType(name="uint32", bits=32, proto=33, blob=15, format="I", metadata_name="UInt32"),
    DType(name="uint64", bits=64, proto=34, field="longInts", format="Q", metadata_name="UInt64"),
    DType(name="uint4", bits=4, proto=35, blob=11, metadata_name="UInt4"),
    DType(name="uint2", bits=2, proto=36, blob=10, metadata_name="UInt2"),
    DType(name="uint1", bits=1, proto=37, blob=9, metadata_name="UInt1"),
    DType(name="uint6", bits=6, proto=38, blob=13, metadata_name="UInt6"),
    DType(name="uint3", bits=3, proto=39, blob=12, metadata_name="UInt3"),
)

DTYPES = {dtype.name: dtype for dtype in _ALL}
BY_PROTO = {dtype.proto: dtype for dtype in _ALL}
BY_BLOB = {dtype.blob: dtype for dtype in _ALL if dtype.blob is not None}
FLOATS = ("fp16", "fp32", "fp64")
PALETTE_BITS = (1, 2, 3, 4, 6, 8)
"""Bits that the index of a palette may have."""
INTEGER_BITS = (4, 8)
"""Bits that a quantized weight may have."""


def packed_bytes(dtype: str, count: int) -> int:
    """Returns the bytes that `count` packed elements of `dtype` take."""
    return (DTYPES[dtype].bits * count + 7) // 8
