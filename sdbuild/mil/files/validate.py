"""Checks that a program is well formed, before it is run, edited or compiled.

`inspect/verify.py` reports more: what is not used, and all that the weight files hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import InvalidProgram, MILError
from sdbuild.mil.files.blob import Blobs
from sdbuild.mil.files.package import Model, read_package
from sdbuild.mil.ir.dtype import packed_bytes
from sdbuild.mil.ir.program import (
    Blob,
    Block,
    DictType,
    Function,
    ListType,
    Operation,
    TensorType,
    TupleType,
    Type,
    Value,
)
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import is_constant, walk, weight_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong, or only a waste of bytes: `is_error` tells which."""

    where: str
    problem: str
    is_error: bool = True


def read_sound(path: Path, weights: Blobs | None = None) -> Model:
    """Returns the model in an `.mlpackage` folder, its program, features and weight files looked
    at.

    Of the weight files the records are read, never the data, so that it takes little more than
    `read_package`, whose arguments these are.

    Raises:
        InvalidProgram: the folder is not a package, or the program in it contradicts itself.
        UnsupportedFormat: the model is not an ML Program.
    """
    model = read_package(path, weights)
    refuse_contradictions(model)
    _refuse(model, misdescribed(model))
    for file in weight_files(model.program):
        for _ in model.reader(file).records():
            pass  # each is checked when it is read
    return model


def refuse_contradictions(model: Model) -> None:
    """Refuses a program that means nothing.

    Raises:
        InvalidProgram: it is one; tells the first contradiction.
    """
    _refuse(model, contradictions(model))


def _refuse(model: Model, problems: Iterable[Problem]) -> None:
    for found in problems:
        raise InvalidProgram(f"{model.source}: {found.where}: {found.problem}",
                             hint="`sdbuild mil verify PATH` lists all problems.")


def blocks(model: Model) -> Iterator[tuple[str, Function, Block]]:
    """Yields every block of every function with the function's name, nested blocks left out."""
    for name, function in model.program.functions.items():
        for block in function.blocks.values():
            yield name, function, block


def contradictions(model: Model) -> Iterator[Problem]:
    """Yields what makes a program meaningless, so that it cannot run: its names and its
    constants."""
    for name, function, block in blocks(model):
        where = f"function {name}"
        yield from _names(where, function, block)
        for operation in walk(block):
            yield from _operation(f"{where}: {operation.type} {operation.name}", model, operation)


# names


def _names(where: str, function: Function, block: Block) -> Iterator[Problem]:
    """Names that are given twice, or used where they are not known."""
    known: set[str] = set()
    for item in function.inputs:
        if item.name in known:
            yield Problem(where=where, problem=f"two inputs are called {item.name!r}")
        known.add(item.name)
    everywhere = {out.name for operation in walk(block) for out in operation.outputs}
    yield from _scope(where, block, known, everywhere)


def _scope(
    where: str, block: Block, outer: set[str], everywhere: set[str]
) -> Iterator[Problem]:
    known = outer | {item.name for item in block.inputs}
    for operation in block.operations:
        place = f"{where}: {operation.type} {operation.name}"
        yield from _unknown(place, operation.references(), known, everywhere)
        for inner in operation.blocks:
            yield from _scope(place, inner, known, everywhere)
        for out in operation.outputs:
            if out.name in known:
                yield Problem(where=place, problem=f"{out.name!r} is defined before")
            known.add(out.name)
    yield from _unknown(f"{where}: outputs", block.outputs, known, everywhere)


def _unknown(
    where: str, names: Iterable[str], known: set[str], everywhere: set[str]
) -> Iterator[Problem]:
    for name in names:
        if name not in known:
            when = "before it is defined" if name in everywhere else "which nothing defines"
            yield Problem(where=where, problem=f"uses {name!r} {when}")


# constants


def _operation(where: str, model: Model, operation: Operation) -> Iterator[Problem]:
    """Arguments without a binding, and constants that do not fit their types."""
    if is_constant(operation) and not operation.outputs:
        yield Problem(where=where, problem="a constant has no value")
    if operation.type == "const" and "val" not in operation.attributes:
        yield Problem(where=where, problem="a constant has no value")
    for key, bindings in operation.inputs.items():
        if not bindings:
            yield Problem(where=f"{where}: {key}", problem="it is bound to nothing")
    values = [(key, b) for key, bindings in operation.inputs.items() for b in bindings]
    for key, value in (*values, *operation.attributes.items()):
        if isinstance(value, Value):
            yield from _value(f"{where}: {key}", model, value)


def _value(where: str, model: Model, value: Value) -> Iterator[Problem]:
    """Yields a constant that does not fill its type; lists, tuples and dictionaries hold others."""
    if isinstance(value.data, Blob):
        yield from _blob(where, model, value, value.data)
    elif isinstance(value.type, TensorType):
        yield from _size(where, value.type, value.data)
    else:
        for kind, item in _items(value):
            if kind != item.type:
                yield Problem(where=where, problem=f"found {item.type}, expected {kind}")
            yield from _value(where, model, item)
        yield from _length(where, value)


def _blob(where: str, model: Model, value: Value, blob: Blob) -> Iterator[Problem]:
    try:
        reader = model.reader(blob.file)
    except MILError:  # reported once, with the weight files
        return
    try:
        record = reader.record(blob.offset)
    except MILError as error:
        yield Problem(where=where, problem=error.message)
        return
    kind = value.tensor
    if record.dtype != kind.dtype:
        yield Problem(where=where, problem=f"its blob holds {record.dtype}, expected {kind.dtype}")
    else:
        yield from _size(where, kind, record.size_bytes)


def _size(where: str, kind: TensorType, data: bytes | tuple[Any, ...] | int) -> Iterator[Problem]:
    """`data` are the packed elements, the strings, or how many bytes there are."""
    found = data if isinstance(data, int) else len(data)
    if kind.count is None:
        return  # as long as there are elements
    is_text = kind.dtype == "string"
    expected = kind.count if is_text else packed_bytes(kind.dtype, kind.count)
    if found != expected:
        unit = "strings" if is_text else "bytes"
        yield Problem(where=where, problem=f"{found} {unit}, expected {expected}: {kind}")


def _items(value: Value) -> Iterator[tuple[Type, Value]]:
    match value.type:
        case ListType(element):
            yield from ((element, item) for item in value.items)
        case TupleType(elements):
            yield from zip(elements, value.items, strict=False)
        case DictType(key, item):
            yield from ((kind, part) for pair in value.items
                        for kind, part in zip((key, item), pair, strict=True))


def _length(where: str, value: Value) -> Iterator[Problem]:
    match value.type:
        case ListType(_, int(expected)):
            pass
        case TupleType(elements):
            expected = len(elements)
        case _:
            return
    if len(value.items) != expected:
        yield Problem(where=where, problem=f"{len(value.items)} items, expected {expected}")


# description


def misdescribed(model: Model) -> Iterator[Problem]:
    """Yields what the description says of features that the program does not have, and the
    reverse."""
    for features in model.description.functions or [model.description]:
        name = getattr(features, "name", "")
        try:
            function = model.program.functions[name] if name else model.program.main
        except (KeyError, InvalidProgram):
            yield Problem(where="description", problem=f"there is no function {name or 'main'!r}")
            continue
        where = f"description of {name or 'the model'}"
        described = [f.name for f in (*features.input, *features.state)]
        yield from _same(f"{where}: inputs", described, [item.name for item in function.inputs])
        outputs = [f.name for f in features.output]
        yield from _same(f"{where}: outputs", outputs, list(function.block.outputs))
        yield from _shapes(where, features, function)


def _same(where: str, described: list[str], found: list[str]) -> Iterator[Problem]:
    if len(set(described)) != len(described):
        yield Problem(where=where, problem="a name is given twice")
    for name in sorted(set(described) - set(found)):
        yield Problem(where=where, problem=f"the program has no {name!r}")
    for name in sorted(set(found) - set(described)):
        yield Problem(where=where, problem=f"{name!r} is not described")


def _shapes(where: str, features: Message, function: Function) -> Iterator[Problem]:
    kinds = {item.name: item.type for item in function.inputs}
    for feature in features.input:
        array, kind = feature.type.multiArrayType, kinds.get(feature.name)
        if not isinstance(kind, TensorType) or kind.count is None:
            continue
        shape, is_fixed = tuple(array.shape), array.WhichOneof("ShapeFlexibility") is None
        if is_fixed and shape and shape != (kind.shape or (1,)):  # a scalar is one element
            problem = f"{feature.name} has shape {list(shape)}, in the program {kind.shape}"
            yield Problem(where=where, problem=problem)
