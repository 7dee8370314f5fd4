"""The nouns of an ML Program, with the words of `MIL.proto`.

Plain frozen values: nothing here reads files, and an edit is a new program made with
`dataclasses.replace`. `decode.py` and `encode.py` read and write protobuf, `text/` reads
and writes `model.mil`.
`extra` is what a noun's message held beside the noun's own fields, serialized: fields newer than
ours, and the rare ones that nothing here needs. It is written back as it came.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any

from sdbuild.base.errors import InvalidProgram

Dim = int | None | EllipsisType
"""A dimension: its size, `None` if unknown, `...` for any number of unknown ones."""


class _Kind:
    """A kind of type, written as in `type_text`."""

    __slots__ = ()

    def __str__(self: Any) -> str:
        return type_text(self)


@dataclass(frozen=True, slots=True)
class TensorType(_Kind):
    """A tensor of one data type; rank 0 is a scalar."""

    dtype: str
    shape: tuple[Dim, ...] = ()
    extra: bytes = field(default=b"", repr=False, compare=False)

    @property
    def count(self) -> int | None:
        """The number of elements, or None if a dimension is unknown."""
        total = 1
        for dim in self.shape:
            if not isinstance(dim, int):
                return None
            total *= dim
        return total

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape, all of it known.

        Raises:
            InvalidProgram: a dimension is unknown.
        """
        known = tuple(dim for dim in self.shape if isinstance(dim, int))
        if len(known) != len(self.shape):
            raise InvalidProgram(f"{type_text(self)}, expected a shape that is known")
        return known

    @property
    def elements(self) -> int:
        """The number of elements, known.

        Raises:
            InvalidProgram: a dimension is unknown.
        """
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class ListType(_Kind):
    """A list of one type of value."""

    element: Type
    length: Dim


@dataclass(frozen=True, slots=True)
class TupleType(_Kind):
    """A fixed number of values, each of its own type."""

    elements: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class DictType(_Kind):
    """A dictionary."""

    key: Type
    value: Type


@dataclass(frozen=True, slots=True)
class StateType(_Kind):
    """A tensor that lives on between predictions."""

    wrapped: Type


Type = TensorType | ListType | TupleType | DictType | StateType


@dataclass(frozen=True, slots=True)
class Blob:
    """The position of a value in a weight file: the offset of its metadata record, in bytes."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Value:
    """A constant.

    `data` is, by type: for tensors the little-endian packed elements, a tuple of strings, or a
    `Blob`; for lists and tuples a tuple of values; for dictionaries a tuple of (key, value) pairs.
    """

    type: Type
    data: bytes | Blob | tuple[Any, ...]
    extra: bytes = field(default=b"", repr=False)

    @property
    def tensor(self) -> TensorType:
        """The type, of a tensor.

        Raises:
            InvalidProgram: it is of another kind.
        """
        return as_tensor(self.type)

    @property
    def items(self) -> tuple[Any, ...]:
        """The strings of a tensor, the values of a list or tuple, the pairs of a dictionary.

        Raises:
            InvalidProgram: it has packed elements, or lies in a weight file.
        """
        if not isinstance(self.data, tuple):
            raise InvalidProgram(f"a constant of type {type_text(self.type)} has no items in place")
        return self.data


Binding = str | Value
"""The value of an argument: the name of another value, or a constant written in place."""


@dataclass(frozen=True, slots=True)
class NamedType:
    """The name and type of an input or an output."""

    name: str
    type: Type
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation; `inputs` maps each argument to its bindings (several if variadic)."""

    type: str
    inputs: Mapping[str, tuple[Binding, ...]] = field(default_factory=dict)
    outputs: tuple[NamedType, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    extra: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """The operation's own name, or that of its first output if it has none."""
        value = self.attributes.get("name")
        if value is not None and isinstance(value.data, tuple) and value.data:
            return str(value.data[0])
        return self.outputs[0].name if self.outputs else ""

    def references(self) -> Iterator[str]:
        """Yields the names that its arguments refer to, in order of the arguments."""
        for bindings in self.inputs.values():
            for binding in bindings:
                if isinstance(binding, str):
                    yield binding

    def constants(self) -> Iterator[Value]:
        """Yields the constants in its arguments and attributes, not those in its blocks."""
        for bindings in self.inputs.values():
            for binding in bindings:
                if isinstance(binding, Value):
                    yield binding
        yield from self.attributes.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Operations in order; `outputs` names the values that leave."""

    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    inputs: tuple[NamedType, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function: its inputs, its opset (`CoreML6` is iOS 16), and a block for each opset."""

    inputs: tuple[NamedType, ...]
    opset: str
    blocks: Mapping[str, Block]
    attributes: Mapping[str, Value] = field(default_factory=dict)
    extra: bytes = field(default=b"", repr=False)

    @property
    def block(self) -> Block:
        """The block of the function's own opset, the one that runs."""
        return self.blocks[self.opset]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An ML Program: named functions, usually only `main`.

    `unwritable` says what its message held that no noun can, so that it must not be written; empty
    for all programs but those with unknown fields in the smallest messages.
    """

    functions: Mapping[str, Function]
    version: int = 1
    attributes: Mapping[str, Value] = field(default_factory=dict)
    doc_string: str = ""
    extra: bytes = field(default=b"", repr=False)
    unwritable: str = ""

    @property
    def main(self) -> Function:
        """The function called `main`, or the only one.

        Raises:
            InvalidProgram: there is neither.
        """
        if "main" in self.functions:
            return self.functions["main"]
        if len(self.functions) != 1:
            found = ", ".join(self.functions) or "none"
            raise InvalidProgram(f"functions {found}, expected main or a single one")
        return next(iter(self.functions.values()))


def as_tensor(kind: Type) -> TensorType:
    """Returns the type, if it is that of a tensor.

    Raises:
        InvalidProgram: it is of another kind.
    """
    if not isinstance(kind, TensorType):
        raise InvalidProgram(f"a value of type {type_text(kind)}, expected a tensor")
    return kind


def string(text: str) -> Value:
    """Returns a constant string, as names and modes are written."""
    return Value(TensorType("string"), (text,))


def type_text(kind: Type) -> str:
    """Returns a type of the program, as short as it can be read: `fp16 [1, ?, 64]`."""
    match kind:
        case TensorType(dtype, shape):
            dims = ["?" if dim is None else "..." if dim is ... else str(dim) for dim in shape]
            return f"{dtype} [{', '.join(dims)}]"
        case StateType(wrapped):
            return f"state {type_text(wrapped)}"
        case ListType(element):
            return f"list of {type_text(element)}"
        case TupleType(elements):
            return f"tuple of {', '.join(map(type_text, elements))}"
        case DictType(key, value):
            return f"dictionary of {type_text(key)} to {type_text(value)}"
