"""Protobuf messages from programs."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from sdbuild.base.errors import UnsupportedFormat
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import (
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
from sdbuild.mil.ir.proto import Message, messages, rank_of, stored_as


def encode_program(program: Program) -> Message:
    """Returns the `MILSpec.Program` message of `program`.

    Raises:
        UnsupportedFormat: something of the message that it was read from would be lost.
    """
    if program.unwritable:
        raise UnsupportedFormat(
            f"the program cannot be written without loss: {program.unwritable}",
            hint="It comes from a newer writer; use its tools, or a newer version of this one.",
        )
    message = messages("MIL").Program(version=program.version, docString=program.doc_string)
    for name, function in program.functions.items():
        _encode_function(function, message.functions[name])
    _encode_values(program.attributes, message.attributes)
    message.MergeFromString(program.extra)
    return message


def _encode_function(function: Function, target: Message) -> None:
    target.opset = function.opset
    _encode_named(function.inputs, target.inputs)
    _encode_values(function.attributes, target.attributes)
    for opset, block in function.blocks.items():
        _encode_block(block, target.block_specializations[opset])
    target.MergeFromString(function.extra)


def _encode_block(block: Block, target: Message) -> None:
    _encode_named(block.inputs, target.inputs)
    target.outputs.extend(block.outputs)
    _encode_values(block.attributes, target.attributes)
    target.SetInParent()
    for operation in block.operations:
        _encode_operation(operation, target.operations.add())
    target.MergeFromString(block.extra)


def _encode_operation(operation: Operation, target: Message) -> None:
    target.type = operation.type
    for key, bindings in operation.inputs.items():
        argument = target.inputs[key]
        for binding in bindings:
            if isinstance(binding, str):
                argument.arguments.add(name=binding)
            else:
                _encode_value(binding, argument.arguments.add().value)
    _encode_named(operation.outputs, target.outputs)
    _encode_values(operation.attributes, target.attributes)
    for block in operation.blocks:
        _encode_block(block, target.blocks.add())
    target.MergeFromString(operation.extra)


def _encode_named(items: tuple[NamedType, ...], target: Message) -> None:
    for item in items:
        message = target.add(name=item.name)
        _encode_type(item.type, message.type)
        message.MergeFromString(item.extra)


def _encode_values(values: Mapping[str, Value], target: Message) -> None:
    for key, value in values.items():
        _encode_value(value, target[key])


def _encode_type(kind: Type, target: Message) -> None:
    match kind:
        case TensorType(dtype, shape):
            target.tensorType.dataType = DTYPES[dtype].proto
            target.tensorType.rank = rank_of(shape)
            for dim in shape:
                _encode_dim(dim, target.tensorType.dimensions.add())
            target.tensorType.MergeFromString(kind.extra)
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


def _encode_value(value: Value, target: Message) -> None:
    _encode_type(value.type, target.type)
    target.MergeFromString(value.extra)
    if isinstance(value.data, Blob):
        target.blobFileValue.fileName = value.data.file
        target.blobFileValue.offset = value.data.offset
        target.blobFileValue.SetInParent()
        return
    inner = target.immediateValue
    match value.type:
        case TensorType(dtype):
            _encode_tensor(dtype, value.data, inner.tensor)
        case TupleType():
            inner.tuple.SetInParent()
            for item in value.items:
                _encode_value(item, inner.tuple.values.add())
        case ListType():
            inner.list.SetInParent()
            for item in value.items:
                _encode_value(item, inner.list.values.add())
        case DictType():
            inner.dictionary.SetInParent()
            for key, item in value.items:
                pair = inner.dictionary.values.add()
                _encode_value(key, pair.key)
                _encode_value(item, pair.value)


def _encode_tensor(dtype: str, data: bytes | tuple[str, ...], target: Message) -> None:
    field, code = stored_as(dtype)
    values = getattr(target, field)
    values.SetInParent()
    if field == "bytes":
        values.values = data
    elif field == "strings":
        values.values.extend(data)
    else:
        values.values.extend(array(code, data))
