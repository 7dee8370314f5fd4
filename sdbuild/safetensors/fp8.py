"""Weights of eight bits, as ComfyUI and others write them, decoded while they are copied.

A plain cast has a number of 8 bits where there was one of 16, which fp16 holds exactly. Newer files
divide each weight by a scale first, which stands beside it under either of two names. A scale is in
fp32, and so is what comes of it.

Source:
    OCP 8-bit Floating Point Specification 1.0 for the numbers; Comfy-Org/ComfyUI `ops.py` and
    `quant_ops.py` for the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.safetensors.decode import to_array
from sdbuild.safetensors.tensors import Tensor

TYPES = ("F8_E4M3", "F8_E5M2")
"""The names of the types in safetensors files."""

_SCALES = ("scale_weight", "weight_scale")
_ASIDE = (*_SCALES, "scale_input", "input_scale", "comfy_quant", "scaled_fp8")
"""The last names of tensors that say how others are stored, or how to multiply in eight bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8(Tensor):
    """A tensor stored as fp8 that gives fp16, or with a scale fp32; `dtype` and `size_bytes` are
    of what it gives."""

    stored: str
    scale: float | None

    @property
    def file_bytes(self) -> int:
        """One byte a number."""
        return self.size_bytes // (2 if self.scale is None else 4)

    def chunks(self) -> Iterator[bytes]:
        """Yields its decoded bytes, some megabytes at a time."""
        table = _table(self.stored)
        if self.scale is not None:
            table = table.astype("<f4") * np.float32(self.scale)
        for chunk in self.file_chunks():
            yield table[np.frombuffer(chunk, np.uint8)].tobytes()


def decoded(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with those of fp8 as wider ones, and without what says how they are
    stored.

    Raises:
        SourceError: a scale is not one number above 0.
    """
    if not any(tensor.dtype in TYPES for tensor in found.values()):
        return dict(found)
    return {
        name: _decoded(tensor, found) if tensor.dtype in TYPES else tensor
        for name, tensor in found.items() if name.rpartition(".")[2] not in _ASIDE
    }


def _decoded(tensor: Tensor, found: Mapping[str, Tensor]) -> Fp8:
    layer = tensor.name.removesuffix("weight")
    scales = [found[layer + name] for name in _SCALES if layer + name in found]
    scale = _number(scales[0]) if scales and tensor.name.endswith(".weight") else None
    return Fp8(
        name=tensor.name, dtype="F16" if scale is None else "F32", shape=tensor.shape,
        file=tensor.file, start=tensor.start, stored=tensor.dtype, scale=scale,
        size_bytes=tensor.size_bytes * (2 if scale is None else 4),
    )


def _number(tensor: Tensor) -> float:
    numbers = to_array(tensor).ravel()
    if numbers.size != 1 or not np.isfinite(numbers[0]) or numbers[0] <= 0:
        raise SourceError(
            f"{tensor.file}: {tensor.name} has {numbers.size} numbers, expected one above 0 that "
            "scales a whole weight",
            hint="use the fp16 or bf16 file of the same model",
        )
    return float(numbers[0])


def _table(stored: str) -> np.ndarray:
    """Returns the number that each byte stands for, in fp16."""
    codes = np.arange(256, dtype="<u2")
    if stored == "F8_E5M2":
        return (codes << 8).view("<f2")  # the upper half of an fp16
    sign, exponent, fraction = 1.0 - 2 * (codes >> 7), (codes >> 3) & 15, codes & 7
    numbers = np.where(exponent == 0, fraction / 8 * 2.0**-6,
                       (1 + fraction / 8) * 2.0 ** (exponent.astype(float) - 7))
    numbers[(codes & 0x7F) == 0x7F] = np.nan
    return (sign * numbers).astype("<f2")
