"""What edits of ML Programs share: a new package of an old one's blobs, each copied once.

An edit walks a program in order and gives back another; the blobs that the new program uses are
streamed into a new weight file as the walk meets them. `compress.py` and `chunk.py` are edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from sdbuild.errors import UnsupportedFormat
from sdbuild.mil.blob import BlobWriter
from sdbuild.mil.destination import RESULT, refuse_taken, whole
from sdbuild.mil.package import WEIGHT_FILE, Model, write_package
from sdbuild.mil.program import Binding, Blob, Block, Operation, Program, TensorType, Value
from sdbuild.mil.proto import Message


class Weights:
    """The weight file of a package that is being written from `model`; a context manager."""

    def __init__(self, model: Model, path: Path) -> None:
        self.path = path
        self._model = model
        self._writer = BlobWriter(path)
        self._copies: dict[Blob, Blob] = {}
        self.is_empty = True

    def __enter__(self) -> Weights:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def append(self, dtype: str, data: bytes | memoryview, padding_bits: int = 0) -> Blob:
        """Writes a new blob of packed bytes."""
        self.is_empty = False
        return Blob(WEIGHT_FILE, self._writer.write(dtype, data, padding_bits))

    def copy(self, blob: Blob) -> Blob:
        """The blob of the new file with the bytes of `blob`, written when first asked for."""
        if blob not in self._copies:
            record = self._model.reader(blob.file).record(blob.offset)
            data = self._model.blob(blob)
            self._copies[blob] = self.append(record.dtype, data, record.padding_bits)
        return self._copies[blob]

    def carry(self, operation: Operation) -> Operation:
        """`operation`, its own blobs copied; `rebuilt` goes into its blocks."""
        return moved(operation, self.copy)


Edit = Callable[[Weights], tuple[Program, Message]]
"""Gives the new program and description; writes the blobs that the program uses."""


def write_edited(model: Model, destination: Path, edit: Edit) -> None:
    """Writes the package that `edit` makes of `model`; it appears whole, or not at all.

    Raises:
        MILError: there is something at `destination`, or it lies in the package of `model`.
        UnsupportedFormat: a blob lies where edits do not look.
    """
    refuse_stray_blobs(model)
    refuse_taken([model.source], [destination])
    with whole(destination) as folder:
        with Weights(model, folder / "weight.bin") as weights:
            program, description = edit(weights)
        write_package(
            folder / RESULT, specification_version=model.specification_version,
            description=description, program=program, extra=model.extra,
            weights=None if weights.is_empty else weights.path,
        )


def moved(operation: Operation, place: Callable[[Blob], Blob]) -> Operation:
    """`operation`, each of its own blobs where `place` says."""

    def move(binding: Binding) -> Binding:
        return _moved(binding, place) if isinstance(binding, Value) else binding

    return replace(
        operation,
        inputs={key: tuple(map(move, bindings)) for key, bindings in operation.inputs.items()},
        attributes={key: _moved(value, place) for key, value in operation.attributes.items()},
    )


def _moved(value: Value, place: Callable[[Blob], Blob]) -> Value:
    if isinstance(value.type, TensorType):
        return replace(value, data=place(value.data)) if isinstance(value.data, Blob) else value
    return replace(value, data=tuple(
        _moved(item, place) if isinstance(item, Value) else tuple(_moved(x, place) for x in item)
        for item in value.data))


def value_blobs(value: Value) -> Iterator[Blob]:
    """The blobs of `value` and of its elements, if it is a list or the like."""
    if isinstance(value.data, Blob):
        yield value.data
    elif not isinstance(value.type, TensorType):
        for item in value.data:
            for element in (item,) if isinstance(item, Value) else item:
                yield from value_blobs(element)


def weight_files(program: Program) -> list[str]:
    """The weight files that a program refers to anywhere, in the order of their names."""
    return sorted({blob.file for blob in program_blobs(program)})


def program_blobs(program: Program) -> Iterator[Blob]:
    """The blobs that a program refers to anywhere, those in attributes and lists included."""
    for function in program.functions.values():
        for block in function.blocks.values():
            yield from chain.from_iterable(map(blobs, block.operations))
    for _, attributes in _attributes(program):
        yield from chain.from_iterable(map(value_blobs, attributes.values()))


def refuse_stray_blobs(model: Model) -> None:
    """Refuses blobs in attributes of the program, a function or a block: no edit moves them.

    Raises:
        UnsupportedFormat: there is one; names the attribute.
    """
    for place, attributes in _attributes(model.program):
        for name, value in attributes.items():
            if any(value_blobs(value)):
                raise UnsupportedFormat(
                    f"{model.source}: the attribute {name} of {place} lies in a weight file,"
                    " which edits do not move")


def _attributes(program: Program) -> Iterator[tuple[str, Mapping[str, Value]]]:
    """All attributes but those of operations, and what has them."""
    yield "the program", program.attributes
    for name, function in program.functions.items():
        yield f"function {name}", function.attributes
        for block in function.blocks.values():
            for inner in (block, *(b for op in walk(block) for b in op.blocks)):
                yield f"a block of function {name}", inner.attributes


def walk(block: Block) -> Iterator[Operation]:
    """Every operation of `block` in order, each before those of its own blocks."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from walk(inner)


def is_constant(operation: Operation) -> bool:
    """Whether its outputs are known when the program is loaded: a const or a packed weight."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


def uses(operation: Operation) -> Iterator[str]:
    """The names that `operation` and its blocks refer to, those inside the blocks included."""
    yield from operation.references()
    for block in operation.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from uses(inner)


def blobs(operation: Operation) -> Iterator[Blob]:
    """The blobs of `operation` and of its blocks."""
    for value in operation.constants():
        yield from value_blobs(value)
    for block in operation.blocks:
        for inner in block.operations:
            yield from blobs(inner)


def used_constants(block: Block) -> Block:
    """`block` without the constants that nothing uses.

    Before:
        const a, const b, c = relu(x=a)
    After:
        const a, c = relu(x=a)
    """
    used = set(block.outputs)
    kept = []
    for operation in reversed(block.operations):
        if is_constant(operation) and used.isdisjoint(out.name for out in operation.outputs):
            continue
        used.update(uses(operation))
        kept.append(operation)
    return replace(block, operations=tuple(reversed(kept)))


def rebuilt(block: Block, change: Callable[[Operation], Operation]) -> Block:
    """`block` with every operation changed, each before those of its own blocks."""
    return expanded(block, lambda operation: (change(operation),))


def expanded(block: Block, change: Callable[[Operation], tuple[Operation, ...]]) -> Block:
    """`block` with several operations for each, all of them before those of their own blocks."""
    changed = chain.from_iterable(map(change, block.operations))
    return replace(block, operations=tuple(
        replace(operation, blocks=tuple(expanded(b, change) for b in operation.blocks))
        for operation in changed))


def renamed(operation: Operation, names: Mapping[str, str]) -> Operation:
    """`operation` with what its arguments refer to called by `names`."""
    return replace(operation, inputs={
        key: tuple(names.get(b, b) if isinstance(b, str) else b for b in bindings)
        for key, bindings in operation.inputs.items()
    })


def fresh(name: str, taken: set[str]) -> str:
    """`name`, or the first of `name_1`, `name_2`, … that is not taken; takes it."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
