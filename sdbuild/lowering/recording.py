"""Lets coremltools lower stand-ins at the cost of stand-ins, and records the blobs it writes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil import helper
from coremltools.converters.mil.mil import Block, Program
from coremltools.converters.mil.mil.ops.defs.iOS15.control_flow import Const
from coremltools.converters.mil.mil.ops.defs.iOS15.elementwise_unary import cast
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.types import (
    type_list,
    type_mapping,
    type_state,
    type_tensor,
)
from coremltools.converters.mil.mil.types.type_mapping import string_to_nptype

from sdbuild.lowering.patched import Patch, patched
from sdbuild.mil.files.blob import BlobAllocator

_UNDERFLOW_CHECKED = 400
"""coremltools looks for values that fp16 makes zero only in tensors of fewer elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A blob that coremltools wrote: its array, as it stood in the program."""

    name: str
    offset: int
    dtype: str
    array: np.ndarray


@contextlib.contextmanager
def recording() -> Iterator[list[Written]]:
    """Replaces functions of coremltools; the list that it gives fills as blobs are written.

    Four would make each stand-in a tensor of its full size; within this context they give the same
    results without:

    - the writing of a blob: only its place is worked out, as the writer would have placed it;
    - the cast of a constant: the rows are cast, not their repetitions;
    - the check for values that fp16 makes zero: it copied each tensor to learn its length, which
      took most of the lowering's time;
    - the check for values that fp16 cannot hold: it made a list of the places of all elements,
      24 bytes for each of a matrix's.

    Six more took most of the time that thousands of small operations take, and change nothing:

    - the whole program was checked after each of a hundred passes, and is checked after those that
      take dead operations away, the last of which come last;
    - it was printed for a log that is not kept;
    - what is computed from compressed constants was found anew after each pass: there are none;
    - a type was described anew each time that it was asked what it is;
    - a constant was read once for its type and once more for its value;
    - a variable was sought in all operations that follow where it was to be replaced by another,
      and is sought up to the last that takes it.

    Raises:
        StepError: this coremltools is not the one whose functions these are.
    """
    written: list[Written] = []
    with patched(patches(written)):
        yield written


def patches(written: list[Written]) -> tuple[Patch, ...]:
    """Returns the functions that are replaced; blobs are added to `written` instead of to a
    file."""
    return (
        Patch(owner=helper, name="_get_offset_by_writing_data",
              parameters=("output_var", "blob_writer"),
              replacement=lambda original: _recorder(written)),
        Patch(owner=cast, name="get_cast_value", parameters=("input_var", "dtype_val"),
              replacement=lambda original: staticmethod(_thin_cast(original))),
        Patch(owner=FP16ComputePrecision, name="_check_underflow_to_zero",
              parameters=("self", "new_var", "var"), replacement=_small_only),
        Patch(owner=FP16ComputePrecision, name="fp16_overflow", parameters=("op",),
              replacement=lambda original: staticmethod(_thin_check(original))),
        Patch(owner=Program, name="validate", parameters=("self", "check_essential_scope"),
              replacement=_seldom),
        Patch(owner=Program, name="__str__", parameters=("self", "print_attr"),
              replacement=lambda original: lambda program: ""),
        Patch(owner=Block, name="_propagate_nonreplaceable_vars", parameters=("self",),
              replacement=_if_compressed),
        *(Patch(owner=owner, name="get_type_info", parameters=("t",), replacement=functools.cache)
          for owner in (type_mapping, type_list, type_state, type_tensor)),
        Patch(owner=Const, name="_get_type_val", parameters=("self", "value"),
              replacement=_once_for_both),
        Patch(owner=Block, name="_replace_var",
              parameters=("self", "old_var", "new_var", "anchor_op", "end_op",
                          "no_check_var_types"),
              replacement=_up_to_last_use),
    )


def _recorder(written: list[Written]) -> Callable[[Any, object], int]:
    allocator = BlobAllocator()

    def write(var: Any, _: object) -> int:
        array = var.val
        dtype = {"f2": "fp16", "f4": "fp32"}.get(array.dtype.str[1:], array.dtype.name)
        offset = allocator.allocate(array.nbytes)
        written.append(Written(name=var.name, offset=offset, dtype=dtype, array=array))
        return offset
    return write


def _seldom(original: Callable[..., None]) -> Callable[..., None]:
    def validate(self: Any, check_essential_scope: bool = False) -> None:
        if check_essential_scope:  # so it is called after dead code is eliminated
            original(self, check_essential_scope)
    return validate


def _if_compressed(original: Callable[..., None]) -> Callable[..., None]:
    def propagate(self: Any) -> None:
        operations = list(self.operations)
        kinds = {kind.__name__ for kind in set(map(type, operations))}
        if any(kind.startswith("constexpr_") for kind in kinds) or any(
                op.blocks for op in operations):
            original(self)
    return propagate


def _once_for_both(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_type_val(self: Any, value: Any) -> Any:
        known = vars(self).pop("_found", None)
        if known is not None and known[0] is value:
            return known[1]
        found = original(self, value)
        self._found = value, found
        return found
    return get_type_val


def _up_to_last_use(original: Callable[..., int]) -> Callable[..., int]:
    def replace(
        self: Any, old_var: Any, new_var: Any, anchor_op: Any = None, end_op: Any = None,
        no_check_var_types: bool = False,
    ) -> int:
        # what a block returns, or an operation's block takes, is left to coremltools
        is_inner = not old_var.consuming_blocks and all(
            op.enclosing_block is self for op in old_var.child_ops)
        if end_op is None and anchor_op not in (None, old_var.op) and is_inner:
            end_op = _last_use(self, old_var, anchor_op)
        return original(self, old_var, new_var, anchor_op, end_op, no_check_var_types)
    return replace


def _last_use(block: Any, var: Any, anchor: Any) -> Any:
    """Returns the last operation after `anchor` that takes the variable; that after `anchor` if
    none does; None where no operation follows."""
    uses = set(var.child_ops)
    node = block.operations._get_node_from_op(anchor).next
    found = node.op if node else None
    while node is not None and uses:
        if node.op in uses:
            uses.remove(node.op)
            found = node.op
        node = node.next
    return found


def _is_repeated(array: object) -> bool:
    return isinstance(array, np.ndarray) and 0 in array.strides and array.size > 0


def _thin(array: np.ndarray) -> np.ndarray:
    """Returns a repeated array without its repetitions.

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
    """Returns the constant `var` without repetitions, as far as the check looks at it."""
    if var.op is None or var.op.op_type != "const" or not _is_repeated(var.val):
        return var
    const = SimpleNamespace(op_type="const", val=SimpleNamespace(val=_thin(var.val)))
    return SimpleNamespace(op=const, is_tensor_or_scalar_of=var.is_tensor_or_scalar_of)


def _small_only(original: Callable[..., None]) -> Callable[..., None]:
    def check(self: Any, new_var: Any, var: Any) -> None:
        if np.size(var.val) < _UNDERFLOW_CHECKED:
            original(self, new_var, var)
    return check
