"""A matrix whose rows and columns are exchanged while it is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.safetensors.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Transposed(Tensor):
    """A matrix as `stored`, read by columns; it is small enough to be held whole."""

    stored: Tensor

    @property
    def file_bytes(self) -> int:
        """Those of the stored one."""
        return self.stored.file_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yields its bytes, all at once."""
        rows, columns = self.stored.shape
        data = np.frombuffer(b"".join(self.stored.chunks()), np.uint8)
        cells = data.reshape(rows, columns, self.size_bytes // (rows * columns))
        yield cells.transpose(1, 0, 2).tobytes()


def transposed(tensor: Tensor) -> Transposed:
    """Returns the matrix with its axes exchanged.

    Raises:
        SourceError: it is no matrix.
    """
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise SourceError(f"{tensor.file}: {tensor.name} has the shape {list(tensor.shape)}, "
                          "expected a matrix")
    return Transposed(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape[::-1],
                      file=tensor.file, start=tensor.start, size_bytes=tensor.size_bytes,
                      stored=tensor)
