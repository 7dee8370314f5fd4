"""Programs from protobuf messages: nothing of a message is lost, or the program says so."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.ir.dtype import BY_PROTO, DTYPES
from sdbuild.mil.ir.encode import encode_program
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
)
from sdbuild.mil.ir.proto import Message, rank_of, serialize, stored_as


def decode_program(message: Message) -> Program:
    """Returns the program in a `MILSpec.Program` message; nothing of it is lost.

    Unknown fields are carried by the nouns; where there is no noun for their message the program
    is marked as `unwritable`.

    Raises:
        InvalidProgram: a value does not fit its type, or a function lacks its block.
        UnsupportedFormat: a data type that we do not know.
    """
    has_unknown = _has_unknown(message)
    program = _Decoder(has_unknown).program(message)
    if has_unknown and serialize(encode_program(program)) != serialize(message):
        return replace(program, unwritable="unknown fields where they cannot be carried")
    return program


def _has_unknown(message: Message) -> bool:
    """Whether there are unknown fields in `message` or any message inside it."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy.ByteSize() != message.ByteSize()


@contextmanager
def located(where: str, hint: str = "") -> Iterator[None]:
    """Puts `where` before the message of an error about an ML Program, and a hint behind one that
    has none."""
    try:
        yield
    except MILError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint or hint,
                          **error.facts) from error


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Messages to nouns; each method is named after its message."""

    keeps_unknown: bool

    def extra(self, message: Message, *held: str) -> bytes:
        """Returns what there is in `message` beside the fields that its noun holds."""
        if not self.keeps_unknown:
            return b""
        return _without(message, *held)

    def program(self, message: Message) -> Program:
        functions = {}
        for name, function in sorted(message.functions.items()):
            with located(f"function {name}"):
                functions[name] = self.function(function)
        return Program(
            version=message.version,
            functions=functions,
            attributes=self.values(message.attributes),
            doc_string=message.docString,
            extra=self.extra(message, "version", "functions", "attributes", "docString"),
        )

    def function(self, message: Message) -> Function:
        if message.opset not in message.block_specializations:
            found = ", ".join(sorted(message.block_specializations)) or "none"
            raise InvalidProgram(f"no block for its opset {message.opset!r}; found: {found}")
        return Function(
            inputs=self.named_types(message.inputs),
            opset=message.opset,
            blocks={o: self.block(b) for o, b in sorted(message.block_specializations.items())},
            attributes=self.values(message.attributes),
            extra=self.extra(message, "inputs", "opset", "block_specializations", "attributes"),
        )

    def block(self, message: Message) -> Block:
        return Block(
            inputs=self.named_types(message.inputs),
            outputs=tuple(message.outputs),
            operations=tuple(self.operation(op) for op in message.operations),
            attributes=self.values(message.attributes),
            extra=self.extra(message, "inputs", "outputs", "operations", "attributes"),
        )

    def operation(self, message: Message) -> Operation:
        with located(f"{message.type} {message.outputs[0].name if message.outputs else ''}"):
            if not message.outputs and message.type.startswith("const"):
                raise InvalidProgram("a constant has no value")
            return Operation(
                type=message.type,
                inputs={
                    key: tuple(self.binding(b) for b in argument.arguments)
                    for key, argument in sorted(message.inputs.items())
                },
                outputs=self.named_types(message.outputs),
                attributes=self.values(message.attributes),
                blocks=tuple(self.block(b) for b in message.blocks),
                extra=self.extra(message, "type", "inputs", "outputs", "attributes", "blocks"),
            )

    def binding(self, message: Message) -> Binding:
        if message.WhichOneof("binding") == "name":
            return message.name
        return self.value(message.value)

    def named_types(self, found: Message) -> tuple[NamedType, ...]:
        return tuple(
            NamedType(item.name, self.type(item.type), self.extra(item, "name", "type"))
            for item in found
        )

    def values(self, found: Message) -> dict[str, Value]:
        return {key: self.value(value) for key, value in sorted(found.items())}

    def type(self, message: Message) -> Type:
        kind = message.WhichOneof("type")
        inner: Any = getattr(message, kind) if kind else None
        match kind:
            case "tensorType":
                return self.tensor_type(inner)
            case "listType":
                return ListType(self.type(inner.type), _dim(inner.length))
            case "tupleType":
                return TupleType(tuple(self.type(t) for t in inner.types))
            case "dictionaryType":
                return DictType(self.type(inner.keyType), self.type(inner.valueType))
            case "stateType":
                return StateType(self.type(inner.wrappedType))
        raise InvalidProgram("a value has no type")

    def tensor_type(self, message: Message) -> TensorType:
        if message.dataType not in BY_PROTO:
            raise UnsupportedFormat(f"data type number {message.dataType} is not known")
        shape = tuple(_dim(d) for d in message.dimensions)
        held = ["dataType", "dimensions"]
        if message.rank == rank_of(shape):
            held.append("rank")
        elif not message.rank:
            raise InvalidProgram(f"a tensor of rank 0 has {len(shape)} dimensions")
        is_plain = len(held) == 3 and not message.attributes
        extra = b"" if is_plain and not self.keeps_unknown else _without(message, *held)
        return TensorType(BY_PROTO[message.dataType].name, shape, extra)

    def value(self, message: Message) -> Value:
        """Returns the constant in a `MILSpec.Value` message."""
        kind = self.type(message.type)
        held = ("type", "immediateValue", "blobFileValue")
        extra = _without(message, *held) if message.docString or self.keeps_unknown else b""
        if message.WhichOneof("value") == "blobFileValue" and isinstance(kind, TensorType):
            place = message.blobFileValue
            return Value(kind, Blob(place.fileName, place.offset), extra)
        return Value(kind, self.immediate(kind, message.immediateValue), extra)

    def immediate(self, kind: Type, message: Message) -> bytes | tuple:
        match message.WhichOneof("value"), kind:
            case "tensor", TensorType():
                return _tensor_data(kind, message.tensor)
            case "tuple", TupleType():
                return tuple(self.value(v) for v in message.tuple.values)
            case "list", ListType():
                return tuple(self.value(v) for v in message.list.values)
            case "dictionary", DictType():
                pairs = message.dictionary.values
                return tuple((self.value(pair.key), self.value(pair.value)) for pair in pairs)
        found = message.WhichOneof("value") or "nothing"
        raise InvalidProgram(f"a constant of type {kind} is stored in {found}")


def _without(message: Message, *fields: str) -> bytes:
    """`message` without `fields`, serialized.

    Raises:
        UnsupportedFormat: a field that we know has another form: protobuf sets a whole map entry
            aside if there are unknown fields in it, and the program would lack what it says.
    """
    rest = type(message)()
    rest.CopyFrom(message)
    for name in fields:
        rest.ClearField(name)
    unknown_fields: Any = UnknownFieldSet(rest)
    for unknown in unknown_fields:
        known = rest.DESCRIPTOR.fields_by_number.get(unknown.field_number)
        if known is not None:
            raise UnsupportedFormat(f"{known.full_name} has a form that is not known")
    return serialize(rest)


def _dim(message: Message) -> Dim:
    match message.WhichOneof("dimension"):
        case "constant":
            return message.constant.size
        case "unknown":
            return ... if message.unknown.variadic else None
    raise InvalidProgram("a dimension is neither constant nor unknown")


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
    try:
        return array(stored_as(kind.dtype)[1], values).tobytes()
    except OverflowError as error:
        raise InvalidProgram(f"a {kind.dtype} constant holds a larger number: {error}") from error
