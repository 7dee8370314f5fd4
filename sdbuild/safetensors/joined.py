"""A tensor of parts that lie elsewhere, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdbuild.safetensors.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Tensor):
    """Parts that follow each other along the first axis."""

    parts: tuple[Tensor, ...]

    @property
    def file_bytes(self) -> int:
        """Those of all parts."""
        return sum(part.file_bytes for part in self.parts)

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes of each part, a piece at a time."""
        for part in self.parts:
            yield from part.chunks()


def joined(parts: Sequence[Tensor]) -> Joined:
    """Returns parts of one type, whose other sides are the same, as one tensor."""
    first = parts[0]
    return Joined(
        name=first.name, dtype=first.dtype, file=first.file, start=first.start, parts=tuple(parts),
        shape=(sum(part.shape[0] for part in parts), *first.shape[1:]),
        size_bytes=sum(part.size_bytes for part in parts))
