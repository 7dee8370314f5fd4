"""The nouns of packed weights: what is to be packed, how it was, and what that did to it.

`compress.py` walks a program with them; `palettize.py`, `quantize.py` and `sparsify.py` pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.mil.ir.dtype import packed_bytes
from sdbuild.mil.ir.program import TensorType, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorReport:
    """The result of packing one tensor.

    `bits` are those of an index, an integer or of the mask; `groups` is the number of tables or
    scales that it has, or 1. `is_whole` says that its channels cannot be parted into the groups or
    blocks that were asked for.

    Units:
        bytes: of the data, without alignment; errors: of the weight's own values; snr_db: infinite
        if nothing was lost.
    """

    name: str
    bits: int
    groups: int
    bytes_before: int
    bytes_after: int
    rms_error: float
    max_error: float
    snr_db: float
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a weight that its users call output and input channels."""

    output: int
    input: int


@dataclass(frozen=True, slots=True)
class Task:
    """One tensor to pack; `axes` is None if its users disagree.

    Constants with the same value, bits, axes and form are packed once.
    """

    name: str
    value: Value
    bits: int
    axes: Axes | None
    as_argument: bool  # in iOS 18's form

    @property
    def type(self) -> TensorType:
        """The type of the dense weight."""
        return self.value.tensor

    @property
    def key(self) -> tuple[object, ...]:
        """The settings that determine the result."""
        return self.value, self.bits, self.axes, self.as_argument


@dataclass(frozen=True, slots=True)
class Part:
    """An argument or attribute of a packed weight."""

    type: TensorType
    data: bytes | memoryview


def part(dtype: str, array: np.ndarray) -> Part:
    """Returns a part of the elements of `array`, a byte or more each, in its shape."""
    return Part(TensorType(dtype, array.shape), array.tobytes())


def shape_part(shape: Sequence[int]) -> Part:
    """Returns a part that tells a shape, as iOS 16's form has it."""
    return part("uint32", np.array(shape, "<u4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """An operation on the way from packed to dense; what it takes, in order.

    A part that is None is the result of the operation before it.
    """

    operation: str
    parts: Mapping[str, Part | None]
    result: TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A packed weight: the operations that unpack it, the last of which gives it."""

    operations: tuple[Unpacking, ...]
    report: TensorReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to pack; `pack` gives None for a tensor that is better left as it is.

    `suffixes` are what the operations that unpack a weight are called after it; `allows` refuses
    the bits that an opset (by number) does not have.
    """

    suffixes: tuple[str, ...]
    allows: Callable[[int, int], None]
    pack: Callable[[Task, np.ndarray], Packed | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The error of packing: sums of the squares of errors and of weights, and the worst error."""

    noise: float = 0.0
    signal: float = 0.0
    worst: float = 0.0

    def __add__(self, other: Loss) -> Loss:
        return Loss(noise=self.noise + other.noise, signal=self.signal + other.signal,
                    worst=max(self.worst, other.worst))


def loss(exact: np.ndarray, found: np.ndarray) -> Loss:
    """Returns the loss of a weight that became `found`.

    Shapes:
        exact, found: any, the same
    """
    exact = exact.astype(np.float32, copy=False)
    error = np.subtract(found, exact, dtype=np.float32)
    return Loss(noise=_sum_of_squares(error), signal=_sum_of_squares(exact),
                worst=abs(float(max(error.max(), -error.min()))))


def _sum_of_squares(array: np.ndarray) -> float:
    return float(np.einsum("i,i->", array.reshape(-1), array.reshape(-1), dtype=np.float64))


def magnitudes(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Returns the greatest magnitude along `axes`.

    Raises:
        MILError: the array holds NaN or infinity.
    Shapes:
        array: any; returns: as `array`, `axes` of size 1
    """
    largest = np.maximum(array.max(axes, keepdims=True), -array.min(axes, keepdims=True))
    refuse_not_finite(array, largest)
    return largest


def refuse_not_finite(array: np.ndarray, some: np.ndarray) -> None:
    """Refuses an array by `some` values, of which one is not finite if one of the array is not.

    Raises:
        MILError: the array holds NaN or infinity; tells how many.
    """
    if not np.isfinite(some).all():
        bad = int((~np.isfinite(array)).sum())
        raise MILError(f"{bad} of {array.size} values are NaN or infinite")


def report(
    task: Task, operations: Sequence[Unpacking], lost: Loss, *, groups: int = 1,
    is_whole: bool = False,
) -> TensorReport:
    """Returns the report of a tensor."""
    kind, count = task.type, task.type.elements
    parts = [p for unpacking in operations for p in unpacking.parts.values() if p is not None]
    return TensorReport(
        name=task.name, bits=task.bits, groups=groups,
        bytes_before=packed_bytes(kind.dtype, count),
        bytes_after=sum(len(p.data) for p in parts),
        rms_error=(lost.noise / count) ** 0.5, max_error=lost.worst,
        snr_db=float(10 * np.log10(lost.signal / lost.noise)) if lost.noise else float("inf"),
        is_whole=is_whole,
    )
