"""Tensors with LoRAs added, by streaming.

DoRA divides the sum by its norm, of each output or of each input, and multiplies it with a
magnitude. A strength s gives W + s · (W' − W), so that 0 changes nothing. The norm of each output
is at hand in a row; for that of each input, the tensor is read once more before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.loras.deltas import Rows
from sdbuild.checkpoints.loras.lora import Update
from sdbuild.safetensors.decode import decoded, encoded, to_array
from sdbuild.safetensors.tensors import Tensor

_BLOCK_ELEMENTS = 1 << 16
"""So many numbers fit the processor's cache with what is added to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(Tensor):
    """A tensor W with updates added: W + Σ strength · scale · delta, in fp32, in its own type.

    `updates` has the strength of each; they are added in this order.
    """

    updates: tuple[tuple[float, Update], ...]

    def chunks(self) -> Iterator[bytes]:
        """Yields its bytes, some rows at a time.

        Raises:
            SourceError: a sum is more than its type holds, or no number; or its type is none of
                floats.
        """
        with np.errstate(all="ignore"):  # values that are not finite are found below
            additions = self._additions()
            for data, block in self._blocks(additions):
                made = encoded(block, self.dtype)
                if not np.isfinite(decoded(made, self)).all():
                    raise self._unsound(data)
                yield made

    def _blocks(self, additions: Sequence[_Addition]) -> Iterator[tuple[bytes, np.ndarray]]:
        """Yields the bytes of some rows, and those rows with the additions, (rows, columns) in
        fp32."""
        columns = int(np.prod(self.shape[1:]))
        rows = max(1, _BLOCK_ELEMENTS // columns)
        row_bytes = self.size_bytes // self.shape[0]
        with self.file.open("rb") as file:
            file.seek(self.start)
            for first in range(0, self.shape[0], rows):
                end = min(first + rows, self.shape[0])
                data = file.read((end - first) * row_bytes)
                if len(data) < (end - first) * row_bytes:
                    raise SourceError(f"{self.file}: ends inside the tensor {self.name}")
                block = decoded(data, self).astype(np.float32).reshape(end - first, columns)
                for addition in additions:
                    addition(block, first, end)
                yield data, block

    def _additions(self) -> list[_Addition]:
        made: list[_Addition] = []
        for strength, update in self.updates:
            rows = update.delta.load()
            if update.magnitude is None:
                made.append(partial(_add, np.float32(strength * update.scale), rows))
                continue
            magnitude = to_array(update.magnitude).astype(np.float64).reshape(-1)
            add = partial(_add, np.float32(update.scale), rows)
            if update.is_by_input:
                sides = int(np.prod(self.shape[2:]))
                squares = _summed(np.stack([
                    _summed(_squares(block)) for _, block in self._blocks([*made, add])
                ]))
                norms = np.sqrt(_summed(squares.reshape(-1, sides).T))
                factor = np.repeat(_ratio(magnitude, norms), sides)
                made.append(partial(_rescale, strength, add, lambda *_, factor=factor: factor))
            else:
                made.append(partial(_rescale, strength, add, partial(_by_row, magnitude)))
        return made

    def _unsound(self, data: bytes) -> SourceError:
        """Returns the cause of a sum that is not a number: the weight's bytes `data`, or an
        update's."""
        hint = "it is damaged, or was saved from a run that diverged"
        if not np.isfinite(decoded(data, self)).all():  # its file is a step's, not the user's
            return SourceError(f"the checkpoint's tensor {self.name} holds NaN or infinity",
                               hint=hint)
        for tensor in (tensor for _, update in self.updates for tensor in update.tensors):
            if not np.isfinite(to_array(tensor)).all():
                return SourceError(f"{tensor.file}: {tensor.name} holds NaN or infinity",
                                   hint=hint)
        return SourceError(f"{self.name}: with the LoRA it is more than {self.dtype} holds",
                           hint="a smaller strength: lora=FILE:0.5")


_Addition = Callable[[np.ndarray, int, int], None]
"""Changes a block in place, of the rows from `first` to before `end`."""

_Factor = Callable[[np.ndarray, int, int], np.ndarray]
"""Returns the factor that a block is multiplied with, for its rows from `first` to before `end`."""


def _add(factor: np.float32, rows: Rows, block: np.ndarray, first: int, end: int) -> None:
    block += factor * rows(first, end)


def _rescale(
    strength: float, add: _Addition, factor: _Factor, block: np.ndarray, first: int, end: int,
) -> None:
    """The block, changed in part: by `strength`, to what DoRA makes of it."""
    made = block.copy()
    add(made, first, end)
    made *= factor(made, first, end)
    made -= block
    made *= np.float32(strength)
    block += made


def _by_row(magnitude: np.ndarray, block: np.ndarray, first: int, end: int) -> np.ndarray:
    norms = np.sqrt(_summed(_squares(block).T))
    return _ratio(magnitude[first:end], norms)[:, None]


def _ratio(magnitude: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """magnitude / norm in fp32, and 0 where all is 0."""
    return np.divide(magnitude, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)


def _squares(block: np.ndarray) -> np.ndarray:
    """In fp64, where they are exact."""
    wide = block.astype(np.float64)
    return wide * wide


def _summed(terms: np.ndarray) -> np.ndarray:
    """Returns the sum along the first axis, in an order that no library chooses: halves are
    added."""
    while len(terms) > 1:
        half = len(terms) // 2
        pairs = terms[:half] + terms[half:2 * half]
        if len(terms) % 2:
            pairs[0] += terms[-1]
        terms = pairs
    return terms[0]
