"""Safetensors files as tables of tensors, and copied without loading them.

A file is a u64 length, a JSON header of that length ({name: dtype, shape, data_offsets}) and the
tensors' bytes. A component's tensors are written sorted by name and without metadata, so that the
same tensors give the same file, whatever they were read from.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open

from sdbuild.base.digest import Digest
from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import json_object, looks_like, shown
from sdbuild.base.progress import report
from sdbuild.base.writeback import Writeback
from sdbuild.safetensors.pickles import UNPICKLE

_COPY_BYTES = 1 << 18
"""So few stay in the processor's cache while they are checked, hashed and written."""

_LARGEST_HEADER = 32 << 20
"""Headers are kilobytes, of LoRAs with their training in the metadata some megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor in a file: `start` is the offset of its first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size_bytes: int

    @property
    def file_bytes(self) -> int:
        """The bytes that it has in the file."""
        return self.size_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yields its bytes, a part at a time."""
        return self.file_chunks()

    def divided(self, count: int) -> list[Tensor]:
        """Equal parts along the first axis.

        Raises:
            SourceError: it cannot be divided so.
        """
        if not self.shape or self.shape[0] % count:
            raise SourceError(f"{self.file}: {self.name} has the shape {list(self.shape)}, expected"
                              f" a first side that {count} divides")
        return [
            replace(self, shape=(self.shape[0] // count, *self.shape[1:]),
                    start=self.start + i * (self.file_bytes // count),
                    size_bytes=self.size_bytes // count)
            for i in range(count)
        ]

    def file_chunks(self) -> Iterator[bytes]:
        """Yields its bytes in the file, a part at a time."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.file_bytes
            while left:
                chunk = file.read(min(left, _COPY_BYTES))
                if not chunk:
                    raise SourceError(f"{self.file}: ends inside the tensor {self.name}")
                left -= len(chunk)
                yield chunk


def table(files: Iterable[Path]) -> dict[str, Tensor]:
    """Returns the tensors of some safetensors files, by name; those of fp8 as fp16 or fp32.

    Raises:
        SourceError: a file is cut short or is not safetensors, or two hold the same tensor.
    """
    from sdbuild.safetensors import fp8  # which needs this module

    found: dict[str, Tensor] = {}
    for path in files:
        for tensor in _read(path):
            if tensor.name in found:
                raise SourceError(
                    f"the tensor {tensor.name} is in {found[tensor.name].file} and in {path}"
                )
            found[tensor.name] = tensor
    return fp8.decoded(found)


def metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of the header, besides the tensors.

    Raises:
        SourceError: the file is cut short or is not safetensors.
    """
    found = _header(path)[0].get("__metadata__") or {}  # safetensors allows null
    return {str(name): str(value) for name, value in found.items()}


def _read(path: Path) -> Iterator[Tensor]:
    header, data = _header(path)
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield Tensor(name=name, dtype=entry["dtype"], shape=tuple(entry["shape"]),
                         file=path, start=data + start, size_bytes=end - start)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header, and the offset at which the tensors' bytes begin."""
    try:
        with safe_open(path, "numpy"):  # checks the header and that the file is whole
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length)
    except (SafetensorError, OSError) as error:
        what, hint = _what_it_is(path)
        if not what:
            what, hint = _wrong_size(path) or ("", hint)
        raise SourceError(
            f"{path}: not a complete safetensors file: {what or error}", hint=hint, file=path.name,
        ) from error
    found = json_object(text, f"{path}: header", SourceError, most_bytes=_LARGEST_HEADER,
                        has_controls=True)  # metadata may hold anything
    for name in found:
        if not name.isprintable():
            raise SourceError(f"{path}: the name of a tensor is {shown(name)}, expected one that "
                              "can be printed")
    return found, 8 + length


_BEGINNINGS = (
    (b"PK\x03\x04", "a pickle of PyTorch's, which can run code when it is read", UNPICKLE),
    (b"\x80\x02", "a pickle, which can run code when it is read", UNPICKLE),
    (b"{", "JSON, perhaps the answer of a server that wants a login",
     "download it again, logged in if its page requires it"),
)


def _what_it_is(path: Path) -> tuple[str, str]:
    """Returns what a file that is no safetensors looks like, and a hint."""
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(64)
    if (found := looks_like(start))[0]:
        return found
    for beginning, what, hint in _BEGINNINGS:
        if start.startswith(beginning):
            return what, hint
    return "", "it may have been cut while it was copied: fetch it again"


def _wrong_size(path: Path) -> tuple[str, str] | None:
    """Returns how the size of a file differs from its header's, and a hint; None if it does
    not, or if the header cannot be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _LARGEST_HEADER))
        header = json_object(text, "header", SourceError, most_bytes=_LARGEST_HEADER,
                             has_controls=True)
        ends = [entry["data_offsets"][1] for name, entry in header.items()
                if name != "__metadata__"]
        found, expected = path.stat().st_size, 8 + length + max(ends, default=0)
        if found == expected:
            return None
    except (OSError, SourceError, KeyError, IndexError, TypeError):
        return None
    what = f"it has {found} bytes, expected {expected} by its header"
    if found > expected:
        return what, "something was written behind its end: fetch it again"
    return what, "it was cut while it was copied: fetch it again"


Check = Callable[[Tensor, bytes], None]
"""Is called with each part of a tensor, and may raise."""


def write(path: Path, tensors: Iterable[Tensor], check: Check | None = None) -> dict[str, str]:
    """Writes the tensors to one safetensors file; the digest of each, by name.

    Args:
        check: of each part of a tensor before it is written.

    Raises:
        SourceError: two tensors have the same name.
    """
    with path.open("wb") as file:
        writeback = Writeback(file)

        def put(data: bytes) -> None:
            file.write(data)
            writeback.advance()

        return _stream(tensors, put, check)[0]


def digests(
    tensors: Iterable[Tensor], check: Check | None = None
) -> tuple[dict[str, str], tuple[Digest, int]]:
    """Returns the digest of each tensor, by name, and the digest and the size in bytes of the file
    that `write` would write.

    Raises:
        SourceError: two tensors have the same name.
    """
    hasher = xxhash.xxh3_128()
    found, size_bytes = _stream(tensors, hasher.update, check)
    return found, (Digest(hasher.hexdigest()), size_bytes)


def _stream(
    tensors: Iterable[Tensor], put: Callable[[bytes], object], check: Check | None
) -> tuple[dict[str, str], int]:
    """Passes on a file of the tensors, a part at a time; returns the digest of each, by name, and
    the size of the file in bytes."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    header: dict[str, Any] = {}
    end = 0
    for tensor in ordered:
        if tensor.name in header:
            raise SourceError(f"{tensor.file}: two tensors are for {tensor.name}")
        header[tensor.name] = {
            "dtype": tensor.dtype, "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.size_bytes],
        }
        end += tensor.size_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    put(len(text).to_bytes(8, "little") + text)
    found = {}
    for tensor in ordered:
        hasher = xxhash.xxh3_128()
        done = start + header[tensor.name]["data_offsets"][0]
        for chunk in tensor.chunks():
            if check is not None:
                check(tensor, chunk)
            hasher.update(chunk)
            put(chunk)
            done += len(chunk)
            report(done, start + end, "bytes")
        found[tensor.name] = hasher.hexdigest()
    return found, start + end
