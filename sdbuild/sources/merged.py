"""Tensors with LoRAs added, by streaming.

Sums are made element by element and in order, not by a matrix library, whose order differs from
machine to machine: the same LoRA gives the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sdbuild.errors import SourceError
from sdbuild.sources.lora import Update
from sdbuild.sources.numbers import decoded, encoded, whole
from sdbuild.sources.tensors import Tensor

_BLOCK_ELEMENTS = 1 << 16
"""So many numbers fit the processor's cache with what is added to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(Tensor):
    """A tensor W with updates added: W + Σ strength · scale · up @ down, in fp32, in its own type.

    `updates` has the strength of each.
    """

    updates: tuple[tuple[float, Update], ...]

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, some rows at a time.

        Raises:
            SourceError: a sum is more than its type holds, or no number; or its type is none of
                floats.
        """
        row_bytes = self.size_bytes // self.shape[0]
        columns = int(np.prod(self.shape[1:]))
        rows = max(1, _BLOCK_ELEMENTS // columns)
        factors = [_factors(strength, update) for strength, update in self.updates]
        with self.file.open("rb") as file:
            file.seek(self.start)
            for first in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - first)
                data = file.read(count * row_bytes)
                if len(data) < count * row_bytes:
                    raise SourceError(f"{self.file}: ends inside the tensor {self.name}")
                block = decoded(data, self).astype(np.float32).reshape(count, columns)
                for factor, up, down in factors:
                    block += factor * _product(up[first:first + count], down)
                made = encoded(block, self.dtype)
                if not np.isfinite(decoded(made, self)).all():
                    raise self._unsound(data)
                yield made

    def _unsound(self, data: bytes) -> SourceError:
        """Whose fault it is that a sum is no number: the weight's bytes `data`, or an update's."""
        used = [tensor for _, update in self.updates
                for tensor in (update.down, update.up, update.mid) if tensor]
        parts = [(self, decoded(data, self)), *((tensor, whole(tensor)) for tensor in used)]
        for tensor, numbers in parts:
            if not np.isfinite(numbers).all():
                return SourceError(f"{tensor.file}: {tensor.name} holds NaN or infinity",
                                   hint="it is damaged, or was saved from a run that diverged")
        return SourceError(f"{self.name}: with the LoRA it is more than {self.dtype} holds",
                           hint="a smaller strength: lora=FILE:0.5")


def _factors(strength: float, update: Update) -> tuple[np.float32, np.ndarray, np.ndarray]:
    """strength · scale, up (out, rank) and down (rank, all columns of W), in fp32."""
    up, down = _matrix(update.up), _matrix(update.down)
    if update.mid is not None:
        mid = whole(update.mid).astype(np.float32)  # (rank, rank, kh, kw)
        sides = mid.shape[2] * mid.shape[3]
        folded = mid.reshape(mid.shape[0], mid.shape[1], sides).transpose(0, 2, 1)
        down = np.stack([_product(row, down).T for row in folded])  # -> (rank, in, kh*kw)
        down = down.reshape(down.shape[0], -1)
    return np.float32(strength * update.scale), up, down


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ right in fp32, summed in the order of the rank."""
    total = np.zeros((left.shape[0], right.shape[1]), np.float32)
    term = np.empty_like(total)
    for i in range(right.shape[0]):
        np.multiply(left[:, i:i + 1], right[i], out=term)
        total += term
    return total


def _matrix(tensor: Tensor) -> np.ndarray:
    return whole(tensor).astype(np.float32).reshape(tensor.shape[0], -1)
