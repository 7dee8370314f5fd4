"""Reads how the weights of a program are packed, from the operations that unpack them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.mil.ir.program import Block, Operation, Program, TensorType, Type, Value
from sdbuild.mil.ir.traverse import walk

_PACKED = "constexpr_"
_PALETTE = "constexpr_lut_to_dense"


def packing(program: Program) -> frozenset[int | str]:
    """Returns how weights are packed: the bits of each palette, and the types of operations that
    are none. Empty if all weights are as they were converted."""
    return frozenset(
        found for function in program.functions.values() for found in _of_block(function.block))


def _of_block(block: Block) -> Iterator[int | str]:
    types = {value.name: value.type for operation in walk(block) for value in operation.outputs}
    for operation in walk(block):
        if operation.type.startswith(_PACKED):
            yield _bits(operation, types) or operation.type


def _bits(operation: Operation, types: Mapping[str, Type]) -> int:
    """Returns the bits of an index into one palette; 0 if there is no palette, or one of
    vectors."""
    if operation.type != _PALETTE:
        return 0
    table = operation.attributes.get("lut") or next(iter(operation.inputs.get("lut", ())), None)
    kind = table.type if isinstance(table, Value) else types.get(table or "")
    if not isinstance(kind, TensorType) or not kind.shape:
        return 0
    entries, vector = (kind.count, 1) if len(kind.shape) == 1 else kind.shape[-2:]
    return (entries - 1).bit_length() if isinstance(entries, int) and vector == 1 else 0
