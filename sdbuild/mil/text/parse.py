"""MIL text read into a program: one pass over tokens, constants packed as they are met.

The grammar is that of `docs/formats/mlmodelc.md`; `printer.py` prints. A constant's text is read by
its type, so its nesting is bounded by that of the type, and its size by that of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sdbuild.base.errors import UnsupportedFormat
from sdbuild.mil.ir.dtype import DTYPES
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
from sdbuild.mil.text.literals import pack_numbers, value_shape
from sdbuild.mil.text.printer import DIALECTS, OPSETS
from sdbuild.mil.text.tokens import LONGEST_QUOTE, Tokens

_BRACKET = re.compile(r"[\[\]]")
_SIZE = re.compile(r"[0-9]{1,18}")
_OPSETS = {text: name for name, text in OPSETS.items()}
_DEEPEST = 64


def parse_program(text: str, source: str = "model.mil") -> Program:
    """Returns the program that MIL text of either dialect describes; `source` names it in messages.

    Raises:
        InvalidProgram: the text breaks the grammar; says line, column, found and expected.
        UnsupportedFormat: the text uses a form that is not known.
    """
    return _Reader(text, source).program()


class _Reader(Tokens):
    """Reads what its methods are named after."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text, source)
        self._tensor_types: dict[str, TensorType] = {}

    # programs

    def program(self) -> Program:
        self.expect("program")
        self.expect("(")
        if self.token not in DIALECTS:
            raise UnsupportedFormat(
                f"{self.source}: MIL text {self.token[:LONGEST_QUOTE]!r}, "
                f"expected one of {', '.join(DIALECTS)}"
            )
        self.advance()
        self.expect(")")
        attributes = self.attributes()
        self.expect("{")
        functions: dict[str, Function] = {}
        while self.token != "}":
            self.expect("func")
            if self.token in functions:
                raise self.error("a function name that is not used before")
            name = self.identifier("a function name")
            functions[name] = self.function()
        self.advance()
        if self.token:
            raise self.error("the end of the text")
        return Program(functions=functions, attributes=attributes)

    def function(self) -> Function:
        self.expect("<")
        if self.token not in _OPSETS:
            raise self.error(f"one of the opsets {', '.join(_OPSETS)}")
        opset = _OPSETS[self.next()]
        self.expect(">")
        self.expect("(")
        inputs = tuple(self.items(self.named_type, ")"))
        attributes = self.attributes()
        block = self.block()
        return Function(inputs=inputs, opset=opset, blocks={opset: block}, attributes=attributes)

    def block(self) -> Block:
        self.expect("{")
        operations = []
        while self.token != "}":
            operations.append(self.operation())
            self.expect(";")
        self.advance()
        self.expect("->")
        self.expect("(")
        outputs = tuple(self.items(lambda: self.identifier("the name of an output"), ")"))
        self.expect(";")
        return Block(operations=tuple(operations), outputs=outputs)

    def operation(self) -> Operation:
        head = self.identifier("an operation")
        outputs: list[NamedType] = []
        while self.token != "(":
            kind = self.type_after(head)
            outputs.append(NamedType(self.identifier("the name of an output"), kind))
            self.expect("," if self.token == "," else "=")
            head = self.identifier("a type or the name of an operation")
        self.advance()
        inputs = self.keyed(self.argument, ")")
        attributes = self.attributes()
        if self.token == "{":
            raise UnsupportedFormat(
                f"{self.source}: {head}: the text of nested blocks is not known"
            )
        return Operation(type=head, inputs=inputs, outputs=tuple(outputs), attributes=attributes)

    def argument(self) -> tuple[Binding, ...]:
        if self.token == "(":
            self.advance()
            return tuple(self.items(self.binding, ")"))
        return (self.binding(),)

    def binding(self) -> Binding:
        head = self.identifier("a name or a constant")
        if self.token in (",", ")"):
            return head
        return self.value_of(self.type_after(head))

    def attributes(self) -> dict[str, Value]:
        if self.token != "[":
            return {}
        self.advance()
        return self.keyed(self.value, "]")

    # types

    def named_type(self) -> NamedType:
        kind = self.type()
        return NamedType(self.identifier("a name"), kind)

    def type(self, depth: int = 0) -> Type:
        return self.type_after(self.identifier("a type"), depth)

    def type_after(self, head: str, depth: int = 0) -> Type:
        """Returns the type that begins with `head`, which has been read."""
        if depth > _DEEPEST:
            raise self.error(f"types nested no deeper than {_DEEPEST}")
        if head in DTYPES:
            return TensorType(head)
        if head not in ("tensor", "list", "tuple", "dict", "state"):
            raise self.error(f"other than this: {head[:LONGEST_QUOTE]!r} is not a type")
        if head == "tensor":
            return self.tensor_type()
        self.expect("<")
        if head == "list":
            return self.list_type(depth)
        return self.composite_type(head, self.items(lambda: self.type(depth + 1), ">"))

    def tensor_type(self) -> TensorType:
        """Returns the type between `<` and `>`; of most programs they are a few, over and over."""
        start, end = self.start, self.text.find(">", self.start) + 1
        known = self._tensor_types.get(self.text[start:end])
        if known is None:
            known = self.new_tensor_type()
            self._tensor_types[self.text[start:end]] = known
        else:
            self.end = end
            self.advance()
        return known

    def new_tensor_type(self) -> TensorType:
        self.expect("<")
        if self.token not in DTYPES:
            raise self.error("a data type")
        dtype = self.next()
        self.expect(",")
        self.expect("[")
        shape = tuple(self.items(self.dim, "]"))
        if len(shape) > _DEEPEST:
            raise self.error(f"no more than {_DEEPEST} dimensions before this")
        self.expect(">")
        return TensorType(dtype, shape)

    def list_type(self, depth: int) -> ListType:
        element = self.type(depth + 1)
        self.expect(",")
        length = self.dim()
        self.expect(">")
        return ListType(element, length)

    def composite_type(self, head: str, parts: list[Type]) -> Type:
        match head, parts:
            case "dict", [key, value]:
                return DictType(key, value)
            case "state", [wrapped]:
                return StateType(wrapped)
            case "tuple", _:
                return TupleType(tuple(parts))
        raise self.error(f"the right number of types before this in a {head}")

    def dim(self) -> Dim:
        if self.token in ("?", "..."):
            return None if self.next() == "?" else ...
        if not _SIZE.fullmatch(self.token):
            raise self.error("a dimension")
        return int(self.next())

    # constants

    def value(self) -> Value:
        return self.value_of(self.type())

    def value_of(self, kind: Type) -> Value:
        self.expect("(")
        value = self.blob(kind) if self.token == "BLOBFILE" else self.literal(kind)
        self.expect(")")
        return value

    def blob(self, kind: Type) -> Value:
        self.advance()
        self.expect("(")
        fields = self.keyed(self.value, ")")
        match fields.get("path"), fields.get("offset"):
            case (Value(TensorType("string", ()), (str(file),)),
                  Value(TensorType("uint64", ()), bytes(offset))):
                return Value(kind, Blob(file, int.from_bytes(offset, "little")))
        raise self.error("a string `path` and a uint64 `offset` before this")

    def literal(self, kind: Type) -> Value:
        match kind:
            case TensorType("string"):
                return Value(kind, self.strings(kind))
            case TensorType():
                return Value(kind, self.numbers(kind))
            case ListType(element):
                self.expect("[")
                return Value(kind, tuple(self.items(lambda: self.literal(element), "]")))
            case TupleType(elements):
                return Value(kind, self.tuple_items(elements))
            case DictType():
                self.expect("{")
                return Value(kind, tuple(self.items(lambda: self.pair(kind), "}")))
        raise self.error("a type that constants have before this")

    def tuple_items(self, kinds: Iterable[Type]) -> tuple[Value, ...]:
        self.expect("(")
        found: list[Value] = []
        for kind in kinds:
            if found:
                self.expect(",")
            found.append(self.literal(kind))
        self.expect(")")
        return tuple(found)

    def pair(self, kind: DictType) -> tuple[Value, Value]:
        self.expect("{")
        key = self.literal(kind.key)
        self.expect(",")
        value = self.literal(kind.value)
        self.expect("}")
        return key, value

    def strings(self, kind: TensorType) -> tuple[str, ...]:
        if not kind.shape:
            return (self.string(),)
        if len(kind.shape) > 1:
            raise UnsupportedFormat(f"{self.source}: string tensors of rank 2 and more")
        self.expect("[")
        found = tuple(self.items(self.string, "]"))
        if value_shape(kind, len(found)) != (len(found),):
            raise self.error(f"{kind.shape[0]} strings before this, not {len(found)}")
        return found

    def numbers(self, kind: TensorType) -> bytes:
        """Returns the packed elements of a tensor: its text is cut and packed as a whole."""
        start, text = self.start, self.number_text()
        try:
            data = pack_numbers(kind, text)
        except ValueError as error:
            self.start, self.token = start, text
            wanted = f"{kind.dtype} elements of shape {list(kind.shape)}"
            raise self.error(f"{wanted}: {error}") from None
        self.advance()
        return data

    def number_text(self) -> str:
        """Returns the text of a tensor's elements, up to the bracket that closes the first."""
        if self.token != "[":
            return self.token
        depth = 0
        for bracket in _BRACKET.finditer(self.text, self.start):
            depth += 1 if bracket[0] == "[" else -1
            if depth == 0:
                self.end = bracket.end()
                return self.text[self.start:self.end]
        raise self.error("a bracket that is closed")
