"""Protobuf messages of the Core ML specification, and programs from and to them.

coremltools carries the generated modules, but importing it costs seconds and pulls its converters
in. A package of ours that borrows the path of its `proto` folder loads the modules alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from array import array
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sdbuild.errors import InvalidProgram, ToolMissing, UnsupportedFormat
from sdbuild.mil.dtype import BY_PROTO, DTYPES
from sdbuild.mil.program import (
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
)

Message = Any
"""A protobuf message; the generated classes carry no types."""

_TYPE_CODES = {"floats": "f", "doubles": "d", "ints": "i", "longInts": "q", "bools": "b"}


def borrowed(folder: str, alias: str) -> ModuleType:
    """A package named `alias` whose modules are those in coremltools' `folder`.

    Raises:
        ToolMissing: coremltools is not installed.
    """
    if alias not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or spec.origin is None:
            raise ToolMissing("coremltools is not installed.", hint="pip install coremltools")
        package = ModuleType(alias)
        package.__path__ = [str(Path(spec.origin).parent / folder)]
        sys.modules[alias] = package
    return sys.modules[alias]


@cache
def messages(name: str) -> ModuleType:
    """The generated module `name`, one of `MIL`, `Model`, `FeatureTypes`."""
    alias = "sdbuild.mil._coreml_proto"
    borrowed("proto", alias)
    return importlib.import_module(f"{alias}.{name}_pb2")


def serialize(message: Message) -> bytes:
    """The bytes of `message`, the same for equal messages (maps in the order of their keys)."""
    return message.SerializeToString(deterministic=True)


# protobuf -> program


def decode_program(message: Message) -> Program:
    """The program in a `MILSpec.Program` message.

    Raises:
        InvalidProgram: a value does not fit its type, or a function lacks its block.
        UnsupportedFormat: a data type that we do not know.
    """
    return Program(
        version=message.version,
        functions={name: _function(name, f) for name, f in sorted(message.functions.items())},
        attributes=_values(message.attributes),
        doc_string=message.docString,
    )


def _function(name: str, message) -> Function:
    if message.opset not in message.block_specializations:
        found = ", ".join(sorted(message.block_specializations)) or "none"
        raise InvalidProgram(
            f"function {name}: no block for its opset {message.opset!r}; found: {found}"
        )
    return Function(
        inputs=_named_types(message.inputs),
        opset=message.opset,
        blocks={o: _block(b) for o, b in sorted(message.block_specializations.items())},
        attributes=_values(message.attributes),
    )


def _block(message: Message) -> Block:
    return Block(
        inputs=_named_types(message.inputs),
        outputs=tuple(message.outputs),
        operations=tuple(_operation(op) for op in message.operations),
        attributes=_values(message.attributes),
    )


def _operation(message: Message) -> Operation:
    return Operation(
        type=message.type,
        inputs={
            key: tuple(_binding(b) for b in argument.arguments)
            for key, argument in sorted(message.inputs.items())
        },
        outputs=_named_types(message.outputs),
        attributes=_values(message.attributes),
        blocks=tuple(_block(b) for b in message.blocks),
    )


def _binding(message: Message) -> Binding:
    return message.name if message.WhichOneof("binding") == "name" else decode_value(message.value)


def _named_types(found: Message) -> tuple[NamedType, ...]:
    return tuple(NamedType(item.name, _type(item.type)) for item in found)


def _values(found: Message) -> dict[str, Value]:
    return {key: decode_value(value) for key, value in sorted(found.items())}


def _type(message: Message) -> Type:
    kind = message.WhichOneof("type")
    inner = getattr(message, kind) if kind else None
    match kind:
        case "tensorType":
            if inner.dataType not in BY_PROTO:
                raise UnsupportedFormat(f"data type number {inner.dataType} is not known")
            dims = tuple(_dim(d) for d in inner.dimensions)
            return TensorType(BY_PROTO[inner.dataType].name, dims)
        case "listType":
            return ListType(_type(inner.type), _dim(inner.length))
        case "tupleType":
            return TupleType(tuple(_type(t) for t in inner.types))
        case "dictionaryType":
            return DictType(_type(inner.keyType), _type(inner.valueType))
        case "stateType":
            return StateType(_type(inner.wrappedType))
    raise InvalidProgram("a value has no type")


def _dim(message: Message) -> Dim:
    if message.WhichOneof("dimension") == "constant":
        return message.constant.size
    return ... if message.unknown.variadic else None


def decode_value(message: Message) -> Value:
    """The constant in a `MILSpec.Value` message."""
    kind = _type(message.type)
    if message.WhichOneof("value") == "blobFileValue" and isinstance(kind, TensorType):
        return Value(kind, Blob(message.blobFileValue.fileName, message.blobFileValue.offset))
    inner = message.immediateValue
    match inner.WhichOneof("value"), kind:
        case "tensor", TensorType():
            return Value(kind, _tensor_data(kind, inner.tensor))
        case "tuple", TupleType():
            return Value(kind, tuple(decode_value(v) for v in inner.tuple.values))
        case "list", ListType():
            return Value(kind, tuple(decode_value(v) for v in inner.list.values))
        case "dictionary", DictType():
            return Value(kind, tuple(
                (decode_value(pair.key), decode_value(pair.value))
                for pair in inner.dictionary.values
            ))
    found = inner.WhichOneof("value") or "nothing"
    raise InvalidProgram(f"a constant of type {kind} is stored in {found}")


def _tensor_data(kind: TensorType, message: Message) -> bytes | tuple[str, ...]:
    field = message.WhichOneof("value")
    expected = DTYPES[kind.dtype].field
    if field is None and kind.count == 0:
        return () if expected == "strings" else b""
    if field != expected:
        raise InvalidProgram(f"a {kind.dtype} constant is stored in {field}, expected {expected}")
    values = getattr(message, field).values
    if field == "strings":
        return tuple(values)
    if field == "bytes":
        return bytes(values)
    return array(_TYPE_CODES[field], values).tobytes()


# program -> protobuf


def encode_program(program: Program) -> Message:
    """The `MILSpec.Program` message of `program`."""
    message = messages("MIL").Program(version=program.version, docString=program.doc_string)
    for name, function in program.functions.items():
        target = message.functions[name]
        target.opset = function.opset
        _encode_named(function.inputs, target.inputs)
        _encode_values(function.attributes, target.attributes)
        for opset, block in function.blocks.items():
            _encode_block(block, target.block_specializations[opset])
    _encode_values(program.attributes, message.attributes)
    return message


def _encode_block(block: Block, target: Message) -> None:
    _encode_named(block.inputs, target.inputs)
    target.outputs.extend(block.outputs)
    _encode_values(block.attributes, target.attributes)
    target.SetInParent()
    for operation in block.operations:
        _encode_operation(operation, target.operations.add())


def _encode_operation(operation: Operation, target: Message) -> None:
    target.type = operation.type
    for key, bindings in operation.inputs.items():
        argument = target.inputs[key]
        for binding in bindings:
            if isinstance(binding, str):
                argument.arguments.add(name=binding)
            else:
                encode_value(binding, argument.arguments.add().value)
    _encode_named(operation.outputs, target.outputs)
    _encode_values(operation.attributes, target.attributes)
    for block in operation.blocks:
        _encode_block(block, target.blocks.add())


def _encode_named(items: tuple[NamedType, ...], target: Message) -> None:
    for item in items:
        _encode_type(item.type, target.add(name=item.name).type)


def _encode_values(values: Mapping[str, Value], target: Message) -> None:
    for key, value in values.items():
        encode_value(value, target[key])


def _encode_type(kind: Type, target: Message) -> None:
    match kind:
        case TensorType(dtype, shape):
            target.tensorType.dataType = DTYPES[dtype].proto
            target.tensorType.rank = -1 if ... in shape else len(shape)
            for dim in shape:
                _encode_dim(dim, target.tensorType.dimensions.add())
        case ListType(element, length):
            _encode_type(element, target.listType.type)
            _encode_dim(length, target.listType.length)
        case TupleType(elements):
            target.tupleType.SetInParent()
            for element in elements:
                _encode_type(element, target.tupleType.types.add())
        case DictType(key, value):
            _encode_type(key, target.dictionaryType.keyType)
            _encode_type(value, target.dictionaryType.valueType)
        case StateType(wrapped):
            _encode_type(wrapped, target.stateType.wrappedType)


def _encode_dim(dim: Dim, target: Message) -> None:
    if isinstance(dim, int):
        target.constant.size = dim
        target.constant.SetInParent()
    else:
        target.unknown.variadic = dim is ...
        target.unknown.SetInParent()


def encode_value(value: Value, target: Message) -> None:
    """Writes `value` into a `MILSpec.Value` message."""
    _encode_type(value.type, target.type)
    if isinstance(value.data, Blob):
        target.blobFileValue.fileName = value.data.file
        target.blobFileValue.offset = value.data.offset
        return
    inner = target.immediateValue
    match value.type:
        case TensorType(dtype):
            _encode_tensor(DTYPES[dtype].field, value.data, inner.tensor)
        case TupleType():
            inner.tuple.SetInParent()
            for item in value.data:
                encode_value(item, inner.tuple.values.add())
        case ListType():
            inner.list.SetInParent()
            for item in value.data:
                encode_value(item, inner.list.values.add())
        case DictType():
            inner.dictionary.SetInParent()
            for key, item in value.data:
                pair = inner.dictionary.values.add()
                encode_value(key, pair.key)
                encode_value(item, pair.value)


def _encode_tensor(field: str, data: bytes | tuple[str, ...], target: Message) -> None:
    values = getattr(target, field)
    values.SetInParent()
    if field == "bytes":
        values.values = data
    elif field == "strings":
        values.values.extend(data)
    else:
        values.values.extend(array(_TYPE_CODES[field], data))
