"""Weight files: blobs mapped for reading, streamed for writing.

A file starts with a 64-byte header (u32 count, u32 version 2, zeros). Each blob is a 64-byte
record at a multiple of 64 (u32 sentinel, u32 data type code, u64 size in bytes, u64 offset of the
data, u64 padding bits, zeros), then its data at a multiple of 64. A program refers to a blob by
the offset of its record. Nothing follows the last blob's data.
"""

from __future__ import annotations

import mmap
import struct
from abc import ABC, abstractmethod
from bisect import bisect, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import xxhash

from sdbuild.base.digest import Digest
from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.base.writeback import Writeback
from sdbuild.mil.ir.dtype import BY_BLOB, DTYPES

ALIGNMENT = 64
_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_COPY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRecord:
    """The metadata of one blob in a weight file.

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


def written_record(offset: int, dtype: str, count: int) -> BlobRecord:
    """Returns the record that `BlobStream` writes at `offset` for `count` elements."""
    bits = count * DTYPES[dtype].bits
    return BlobRecord(offset=offset, dtype=dtype, size_bytes=-(-bits // 8),
                      data_offset=offset + _RECORD.size, padding_bits=-bits % 8)


class Blobs(Protocol):
    """The blobs of a weight file, wherever their bytes are."""

    def record(self, offset: int) -> BlobRecord:
        """Returns the record at `offset`."""

    def data(self, offset: int) -> memoryview:
        """Returns the packed bytes of the blob at `offset`."""

    def records(self) -> Iterator[BlobRecord]:
        """Yields every record, in order."""


class BlobReader:
    """A weight file, mapped: reading a blob costs the pages that it lies on.

    Blobs that overlap are refused when the second is asked for, so that a small file cannot stand
    for more bytes than it has.

    Raises:
        InvalidProgram: the header, a record or an offset breaks the format; says where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[int, BlobRecord] = {}
        self._spans: list[tuple[int, int, int]] = []  # start, end, offset of the record; sorted
        size = _size(path)
        if size is None:
            raise InvalidProgram(f"{path}: there is no such weight file")
        if size < _HEADER.size:
            raise InvalidProgram(f"{path}: {size} bytes, expected a weight file of 64 or more")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.count, version = _HEADER.unpack_from(self._map)
        if version != _VERSION:
            raise InvalidProgram(f"{path}: weight file version {version}, expected {_VERSION}")

    def record(self, offset: int) -> BlobRecord:
        """Returns the record at `offset`."""
        if offset not in self._records:
            record = self._unpack(offset)
            self._claim(offset, offset, _RECORD.size)
            self._claim(offset, record.data_offset, record.size_bytes)
            self._records[offset] = record
        return self._records[offset]

    def _unpack(self, offset: int) -> BlobRecord:
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
                f"{where}: its {size} bytes at {data} are outside the file's {len(self._map)}"
            )
        if padding > min(7, size * 8):
            raise InvalidProgram(f"{where}: {padding} padding bits, expected less than a byte")
        return BlobRecord(offset=offset, dtype=BY_BLOB[code].name, size_bytes=size,
                          data_offset=data, padding_bits=padding)

    def _claim(self, offset: int, start: int, size: int) -> None:
        """Takes bytes for the blob at `offset`, if no other has any of them."""
        if not size:
            return
        span = (start, start + size, offset)
        at = bisect(self._spans, span)
        for other in self._spans[max(at - 1, 0):at + 1]:
            if other[0] < span[1] and span[0] < other[1] and other[2] != offset:
                raise InvalidProgram(
                    f"{self.path}: the blobs at offsets {other[2]} and {offset} overlap"
                )
        insort(self._spans, span)

    def data(self, offset: int) -> memoryview:
        """Returns the packed bytes of the blob at `offset`, mapped, not copied."""
        record = self.record(offset)
        return memoryview(self._map)[record.data_offset:record.data_offset + record.size_bytes]

    def records(self) -> Iterator[BlobRecord]:
        """Yields every record of the file, in order."""
        offset = _HEADER.size
        for _ in range(self.count):
            record = self.record(offset)
            yield record
            offset = _aligned(record.data_offset + record.size_bytes)


class BlobAllocator:
    """Assigns offsets to the blobs of a weight file that is written in order."""

    def __init__(self) -> None:
        self.end = _HEADER.size

    def allocate(self, size_bytes: int) -> int:
        """Returns the offset of the next blob's record."""
        offset = _aligned(self.end)
        self.end = offset + _RECORD.size + size_bytes
        return offset


class BlobStream(ABC):
    """A weight file that is produced blob by blob: to a file, or into a digest."""

    def __init__(self) -> None:
        self.count = 0
        self._allocator = BlobAllocator()

    @abstractmethod
    def _put(self, data: bytes | memoryview) -> None:
        """Takes the next bytes of the file."""

    def write(self, dtype: str, data: bytes | memoryview, padding_bits: int = 0) -> int:
        """Appends a blob of packed bytes; returns the offset of its record."""
        size = len(data)
        parts = (data[at:at + _COPY_BYTES] for at in range(0, size, _COPY_BYTES))
        return self.stream(dtype, size, parts, padding_bits)

    def stream(
        self, dtype: str, size_bytes: int, parts: Iterable[bytes | memoryview],
        padding_bits: int = 0,
    ) -> int:
        """Appends a blob whose packed bytes come in parts; returns the offset of its record.

        Raises:
            InvalidProgram: the parts are not `size_bytes` in sum.
        """
        before = self._allocator.end
        offset = self._allocator.allocate(size_bytes)
        start = offset + _RECORD.size
        self._put(bytes(offset - before))
        self._put(_RECORD.pack(_SENTINEL, DTYPES[dtype].blob, size_bytes, start, padding_bits))
        written = 0
        for part in parts:
            self._put(part)
            written += len(part)
        if written != size_bytes:
            raise InvalidProgram(f"{self}: {written} bytes for a blob, expected {size_bytes}")
        self.count += 1
        return offset


class BlobWriter(BlobStream):
    """Writes a weight file; use as a context manager."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file: IO[bytes] = path.open("wb")
        self._file.write(_HEADER.pack(0, _VERSION))
        self._writeback = Writeback(self._file)

    def __repr__(self) -> str:
        return str(self._file.name)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._file.write(_HEADER.pack(self.count, _VERSION))
        self._file.close()

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._writeback.advance()


class BlobDigest(BlobStream):
    """Computes the digest of a weight file of `count` blobs without writing it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._hasher = xxhash.xxh3_128(_HEADER.pack(count, _VERSION))

    @property
    def size_bytes(self) -> int:
        """The bytes of the file so far."""
        return self._allocator.end

    def digest(self) -> Digest:
        """Returns the digest, as `digest_file` returns it for the written file."""
        return Digest(self._hasher.hexdigest())

    def _put(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)


def _size(path: Path) -> int | None:
    """Returns the bytes of a file, or None if there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # a name that no file system takes
        return None


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
