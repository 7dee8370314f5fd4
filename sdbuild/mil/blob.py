"""Weight files: blobs mapped for reading, streamed for writing.

A file starts with a 64-byte header (u32 count, u32 version 2, zeros). Each blob is a 64-byte
record at a multiple of 64 (u32 sentinel, u32 data type code, u64 size in bytes, u64 offset of the
data, u64 padding bits, zeros), then its data at a multiple of 64. A program refers to a blob by
the offset of its record. Nothing follows the last blob's data.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sdbuild.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.dtype import BY_BLOB, DTYPES

ALIGNMENT = 64
_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_COPY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRecord:
    """What a weight file says of one blob.

    Units:
        offset, data_offset: bytes from the start of the file; size_bytes: packed, so the last
        `padding_bits` bits of a sub-byte type are unused.
    """

    offset: int
    dtype: str
    size_bytes: int
    data_offset: int
    padding_bits: int

    @property
    def count(self) -> int:
        """The number of elements."""
        return (self.size_bytes * 8 - self.padding_bits) // DTYPES[self.dtype].bits


class BlobReader:
    """A weight file, mapped: reading a blob costs the pages that it lies on.

    Raises:
        InvalidProgram: the header, a record or an offset breaks the format; says where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size if path.is_file() else 0
        if size < _HEADER.size:
            raise InvalidProgram(f"{path}: {size} bytes, expected a weight file of 64 or more")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.count, version = _HEADER.unpack_from(self._map)
        if version != _VERSION:
            raise InvalidProgram(f"{path}: weight file version {version}, expected {_VERSION}")

    def record(self, offset: int) -> BlobRecord:
        """The record at `offset`."""
        where = f"{self.path}: blob at offset {offset}"
        if offset % ALIGNMENT or not 0 < offset <= len(self._map) - _RECORD.size:
            raise InvalidProgram(
                f"{where}: expected a multiple of {ALIGNMENT} inside {len(self._map)} bytes"
            )
        sentinel, code, size, data, padding = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise InvalidProgram(f"{where}: found {sentinel:#010x}, expected {_SENTINEL:#010x}")
        if code not in BY_BLOB:
            raise UnsupportedFormat(f"{where}: data type code {code} is not known")
        if data < offset + _RECORD.size or data + size > len(self._map):
            raise InvalidProgram(
                f"{where}: its {size} bytes at {data} lie outside the file's {len(self._map)}"
            )
        return BlobRecord(offset=offset, dtype=BY_BLOB[code].name, size_bytes=size,
                          data_offset=data, padding_bits=padding)

    def data(self, offset: int) -> memoryview:
        """The packed bytes of the blob at `offset`, mapped, not copied."""
        record = self.record(offset)
        return memoryview(self._map)[record.data_offset:record.data_offset + record.size_bytes]

    def records(self) -> Iterator[BlobRecord]:
        """Every record of the file, in order."""
        offset = _HEADER.size
        for _ in range(self.count):
            record = self.record(offset)
            yield record
            offset = _aligned(record.data_offset + record.size_bytes)


class BlobWriter:
    """Writes a weight file as a stream; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._file.write(_HEADER.pack(0, _VERSION))
        self._count = 0
        self._end = _HEADER.size

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._file.write(_HEADER.pack(self._count, _VERSION))
        self._file.close()

    def write(self, dtype: str, data: bytes | memoryview, padding_bits: int = 0) -> int:
        """Appends a blob of packed bytes; returns the offset of its record."""
        offset = _aligned(self._end)
        size = len(data)
        start = offset + _RECORD.size
        self._file.write(bytes(offset - self._end))
        self._file.write(_RECORD.pack(_SENTINEL, DTYPES[dtype].blob, size, start, padding_bits))
        for at in range(0, size, _COPY_BYTES):
            self._file.write(data[at:at + _COPY_BYTES])
        self._end = start + size
        self._count += 1
        return offset


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
