"""MIL text, the `model.mil` of compiled models: printed here, read in `parse.py`.

Printing adds and drops nothing; inputs, arguments and attributes are put in the order of their
names, as Apple's compiler does. The format is described in `docs/formats/mlmodelc.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.ir.program import (
    Binding,
    Blob,
    Block,
    DictType,
    Dim,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    StateType,
    TensorType,
    TupleType,
    Type,
    Value,
    string,
)
from sdbuild.mil.text.literals import format_tensor

DIALECTS = ("1.0", "1.3")
"""The two forms: 1.0 writes scalars as tensors of rank 0, 1.3 writes their data type alone."""

OPSETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18"}
"""Each opset's name in the protobuf, and in text."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def dialect_of(specification_version: int) -> str:
    """Returns the dialect in which a model of this specification version is compiled.

    Raises:
        UnsupportedFormat: no compiled model of that version is known.
    """
    if specification_version not in range(6, 10):
        raise UnsupportedFormat(
            f"specification version {specification_version}: its compiled form is not known; "
            "expected 6 to 9 (iOS 15 to 18)"
        )
    return "1.3" if specification_version >= 9 else "1.0"


def format_program(program: Program, dialect: str) -> str:
    """Returns the MIL text of `program`, byte for byte as Apple's compiler writes it.

    Raises:
        InvalidProgram: the data of a constant does not fit its type.
        UnsupportedFormat: the dialect, or the text form of something in the program, is not known.
    """
    if dialect not in DIALECTS:
        raise UnsupportedFormat(f"MIL text {dialect!r}, expected one of {', '.join(DIALECTS)}")
    return _Printer(scalars_are_tensors=dialect == "1.0").program(program, dialect)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Printer:
    scalars_are_tensors: bool

    def program(self, program: Program, dialect: str) -> str:
        _refuse_extra(program, "the program")
        attributes = self.attributes(program.attributes)
        head = f"\n{attributes}\n{{" if attributes else " {"
        functions = "".join(self.function(*item) for item in program.functions.items())
        return f"program({dialect}){head}\n{functions}}}"

    def function(self, name: str, function: Function) -> str:
        if function.opset not in OPSETS:
            raise UnsupportedFormat(
                f"function {name}: opset {function.opset}, expected one of {', '.join(OPSETS)}"
            )
        _refuse_extra(function, f"function {name}")
        _refuse_extra(function.block, f"function {name}")
        inputs = self.named_types(sorted(function.inputs, key=lambda item: item.name))
        attributes = self.attributes(function.attributes)
        head = f"func {_name(name)}<{OPSETS[function.opset]}>({inputs})"
        lines = [f"    {head}{attributes and ' '}{attributes} {{"]
        lines += [f"            {self.operation(op)};" for op in function.block.operations]
        lines += [f"        }} -> ({', '.join(map(_name, function.block.outputs))});\n"]
        return "\n".join(lines)

    def operation(self, operation: Operation) -> str:
        if operation.blocks:
            raise UnsupportedFormat(
                f"{operation.type} {operation.name}: the text of nested blocks is not known"
            )
        _refuse_extra(operation, f"{operation.type} {operation.name}")
        arguments = ", ".join(
            f"{_name(key)} = {self.argument(bindings)}"
            for key, bindings in sorted(operation.inputs.items())
        )
        outputs = self.named_types(operation.outputs)
        call = f"{_name(operation.type)}({arguments}){self.attributes(operation.attributes)}"
        return f"{outputs} = {call}" if outputs else call

    def argument(self, bindings: tuple[Binding, ...]) -> str:
        texts = [_name(b) if isinstance(b, str) else self.value(b) for b in bindings]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"

    def attributes(self, attributes: Mapping[str, Value]) -> str:
        items = [f"{_name(key)} = {self.value(value)}" for key, value in sorted(attributes.items())]
        return f"[{', '.join(items)}]" if items else ""

    def named_types(self, items: Iterable[NamedType]) -> str:
        return ", ".join(f"{self.type(item.type)} {_name(item.name)}" for item in items)

    def type(self, kind: Type) -> str:
        match kind:
            case TensorType(dtype, ()) if not self.scalars_are_tensors:
                return dtype
            case TensorType(dtype, shape):
                return f"tensor<{dtype}, [{', '.join(map(_dim, shape))}]>"
            case ListType(element, length):
                return f"list<{self.type(element)}, {_dim(length)}>"
            case TupleType(elements):
                return f"tuple<{', '.join(map(self.type, elements))}>"
            case DictType(key, value):
                return f"dict<{self.type(key)}, {self.type(value)}>"
            case StateType(wrapped):
                return f"state<{self.type(wrapped)}>"

    def value(self, value: Value) -> str:
        return f"{self.type(value.type)}({self.literal(value)})"

    def literal(self, value: Value) -> str:
        _refuse_extra(value, "a constant")
        if isinstance(value.data, Blob):
            offset = Value(TensorType("uint64"), value.data.offset.to_bytes(8, "little"))
            path = self.value(string(value.data.file))
            return f"BLOBFILE(path = {path}, offset = {self.value(offset)})"
        match value.type:
            case TensorType():
                return format_tensor(value.type, value.data)
            case ListType():
                return f"[{', '.join(map(self.literal, value.items))}]"
            case TupleType():
                return f"({', '.join(map(self.literal, value.items))})"
            case DictType():
                pairs = (f"{{{self.literal(k)}, {self.literal(v)}}}" for k, v in value.items)
                return f"{{{', '.join(pairs)}}}"
        raise InvalidProgram(f"a constant has the type {self.type(value.type)}")


def _refuse_extra(noun: Program | Function | Block | Operation | Value, where: str) -> None:
    if noun.extra:
        raise UnsupportedFormat(f"{where}: the text of unknown fields or notes is not known")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UnsupportedFormat(f"the text of a name like {name!r} is not known")
    return name


def _dim(dim: Dim) -> str:
    return "?" if dim is None else "..." if dim is ... else str(dim)
