"""A table of embeddings with some of its rows replaced, by streaming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.safetensors.decode import encoded, is_finite, to_array
from sdbuild.safetensors.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Tensor):
    """A table whose `rows` are replaced, each by its bytes."""

    rows: Mapping[int, bytes]

    def chunks(self) -> Iterator[bytes]:
        """Yields its bytes, a part at a time."""
        size, start = self.size_bytes // self.shape[0], 0
        for chunk in self.file_chunks():
            part, end = bytearray(chunk), start + len(chunk)
            for row, data in self.rows.items():
                first, last = max(row * size, start), min((row + 1) * size, end)
                if first < last:
                    part[first - start:last - start] = data[first - row * size:last - row * size]
            start = end
            yield bytes(part)


def rows_of(vectors: Tensor, dtype: str) -> list[bytes]:
    """Returns the bytes of each vector in a type of safetensors.

    Raises:
        SourceError: a number is not finite, or more than the type holds.
    """
    array = to_array(vectors)
    found = [encoded(row.astype(np.float32), dtype)
             for row in array.reshape(-1, array.shape[-1])]
    if not all(is_finite(dtype, row) for row in found):
        raise SourceError(f"{vectors.file}: {vectors.name} holds NaN, infinity, or more than "
                          f"{dtype} holds",
                          hint="it is damaged, or was saved from a run that diverged")
    return found
