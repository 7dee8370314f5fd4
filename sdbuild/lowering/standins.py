"""Stand-ins: tensors that take the place of weights while an architecture is lowered.

A stand-in has one number per row of axis 0, repeated over the other axes with stride 0, so it
costs four bytes a row whatever its size. Its first number is its own among all stand-ins of a
network, and all numbers are fp16 ones, which no cast changes. So every blob of the lowered program
tells which parameter belongs there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from coremltools.converters.mil.backend.mil import helper
from coremltools.converters.mil.mil import Program
from coremltools.converters.mil.mil.ops.defs.iOS15.elementwise_unary import cast
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.types.type_mapping import string_to_nptype

from sdbuild.errors import StepError
from sdbuild.mil.blob import Layout

_SEED = 8128
_UNDERFLOW_CHECKED = 400
"""coremltools looks for values that fp16 makes zero only in tensors of fewer elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A blob that coremltools wrote: its array, as it stood in the program."""

    name: str
    offset: int
    dtype: str
    array: np.ndarray


class StandIns:
    """The stand-ins of a network's parameters.

    Args:
        shapes: of the parameters, by name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        rng = np.random.default_rng(_SEED)
        grid = np.arange(0.25, 4, 2**-10, dtype=np.float32)
        grid = grid[grid == grid.astype(np.float16)]  # 4096 numbers that fp16 holds
        firsts = rng.permutation(np.concatenate([grid, -grid]))
        if len(shapes) > len(firsts):
            raise StepError(f"{len(shapes)} parameters, expected at most {len(firsts)}")
        self.shapes = dict(shapes)
        self.rows = {
            name: np.concatenate([firsts[i:i + 1], rng.choice(grid, max(_rows(shape) - 1, 0))])
            for i, (name, shape) in enumerate(shapes.items())
        }
        self._by_first = {float(rows[0]): name for name, rows in self.rows.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The stand-in of each parameter, in fp32."""
        return {
            name: torch.from_numpy(rows).reshape(_column(self.shapes[name]))
            .expand(self.shapes[name])
            for name, rows in self.rows.items()
        }

    def parameter(self, array: np.ndarray) -> tuple[str, bool] | None:
        """The parameter whose stand-in `array` is, and whether it is transposed; None if none.

        Raises:
            StepError: it is made of a stand-in's numbers, in another form.
        """
        name = self._by_first.get(float(array.flat[0])) if array.size else None
        if name is None:
            return None
        rows, shape = self.rows[name], self.shapes[name]
        expected = np.broadcast_to(rows.reshape(_column(shape)), shape).squeeze()
        found = array.squeeze()
        if found.shape == expected.shape and np.array_equal(found, expected):
            return name, False
        if found.ndim == 2 and found.T.shape == expected.shape and np.array_equal(
            found.T, expected
        ):
            return name, True
        known = set(rows.tolist())
        if not all(float(number) in known for number in array.flat):
            return None  # a constant that happens to begin with the same number
        raise StepError(
            f"the parameter {name} of shape {list(shape)} is in the lowered program as "
            f"{list(array.shape)}, in an order that is not known",
            hint="lower=direct converts without stand-ins",
        )


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _column(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (_rows(shape), *[1] * (len(shape) - 1)) if shape else ()


@contextlib.contextmanager
def recording() -> Iterator[list[Written]]:
    """Lets coremltools lower stand-ins at the cost of stand-ins, and notes the blobs it writes.

    Four functions of coremltools 9 would make each stand-in a tensor of its full size; within
    this context they give the same results without:

    - the writing of a blob: only its place is worked out, as the writer would have placed it;
    - the cast of a constant: the rows are cast, not their repetitions;
    - the check for values that fp16 makes zero: it copied each tensor to learn its length, which
      took most of the lowering's time;
    - the check for values that fp16 cannot hold: it made a list of the places of all elements,
      24 bytes for each of a matrix's.

    Two more took almost half of the time that thousands of small operations take, and change
    nothing. The whole program was checked after each of a hundred passes, and is checked after
    those that take dead operations away, the last of which come last; and it was printed for a
    log that is not kept.
    """
    written: list[Written] = []
    layout = Layout()

    def write(var: Any, _: object) -> int:
        array = var.val
        dtype = {"f2": "fp16", "f4": "fp32"}.get(array.dtype.str[1:], array.dtype.name)
        offset = layout.place(array.nbytes)
        written.append(Written(name=var.name, offset=offset, dtype=dtype, array=array))
        return offset

    with (
        mock.patch.object(helper, "_get_offset_by_writing_data", write),
        mock.patch.object(cast, "get_cast_value", staticmethod(_thin_cast(cast.get_cast_value))),
        mock.patch.object(FP16ComputePrecision, "_check_underflow_to_zero", _small_only(
            FP16ComputePrecision._check_underflow_to_zero
        )),
        mock.patch.object(FP16ComputePrecision, "fp16_overflow", staticmethod(_thin_check(
            FP16ComputePrecision.fp16_overflow
        ))),
        mock.patch.object(Program, "validate", _seldom(Program.validate)),
        mock.patch.object(Program, "__str__", lambda program: ""),
    ):
        yield written


def _seldom(original: Callable[..., None]) -> Callable[..., None]:
    def validate(self: Any, check_essential_scope: bool = False) -> None:
        if check_essential_scope:  # so it is called after dead code is eliminated
            original(self, check_essential_scope)
    return validate


def _is_repeated(array: object) -> bool:
    return isinstance(array, np.ndarray) and 0 in array.strides and array.size > 0


def _thin(array: np.ndarray) -> np.ndarray:
    """A repeated array without its repetitions.

    Shapes:
        returns: as `array`, 1 in the place of each axis of stride 0
    """
    return array[tuple(slice(None) if s else slice(1) for s in array.strides)]


def _thin_cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_cast_value(var: Any, dtype: str) -> Any:
        if not _is_repeated(var.val):
            return original(var, dtype)
        return np.broadcast_to(_thin(var.val).astype(string_to_nptype(dtype)), var.val.shape)
    return get_cast_value


def _thin_check(original: Callable[..., bool]) -> Callable[..., bool]:
    def is_too_large(operation: Any) -> bool:
        inputs = {
            name: [_thin_var(v) for v in (given if isinstance(given, list | tuple) else [given])]
            for name, given in operation.inputs.items()
        }
        return original(SimpleNamespace(inputs=inputs))
    return is_too_large


def _thin_var(var: Any) -> Any:
    """The constant `var` without repetitions, as far as the check looks at it."""
    if var.op is None or var.op.op_type != "const" or not _is_repeated(var.val):
        return var
    const = SimpleNamespace(op_type="const", val=SimpleNamespace(val=_thin(var.val)))
    return SimpleNamespace(op=const, is_tensor_or_scalar_of=var.is_tensor_or_scalar_of)


def _small_only(original: Callable[..., None]) -> Callable[..., None]:
    def check(self: Any, new_var: Any, var: Any) -> None:
        if np.size(var.val) < _UNDERFLOW_CHECKED:
            original(self, new_var, var)
    return check
