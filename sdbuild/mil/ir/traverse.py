"""Traversal of programs: every operation, blob and use of a value, and blocks rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from sdbuild.mil.ir.program import Binding, Blob, Block, Operation, Program, TensorType, Value


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
        for item in value.items))


def value_blobs(value: Value) -> Iterator[Blob]:
    """Yields the blobs of `value` and of its elements, if it is a list or the like."""
    if isinstance(value.data, Blob):
        yield value.data
    elif not isinstance(value.type, TensorType):
        for item in value.items:
            for element in (item,) if isinstance(item, Value) else item:
                yield from value_blobs(element)


def weight_files(program: Program) -> list[str]:
    """Returns the weight files that a program refers to anywhere, in the order of their names."""
    return sorted({blob.file for blob in program_blobs(program)})


def program_blobs(program: Program) -> Iterator[Blob]:
    """Yields the blobs that a program refers to anywhere, those in attributes and lists
    included."""
    for function in program.functions.values():
        for block in function.blocks.values():
            yield from chain.from_iterable(map(blobs, block.operations))
    for _, attributes in all_attributes(program):
        yield from chain.from_iterable(map(value_blobs, attributes.values()))


def all_attributes(program: Program) -> Iterator[tuple[str, Mapping[str, Value]]]:
    """Yields all attributes but those of operations, each with the name of its owner."""
    yield "the program", program.attributes
    for name, function in program.functions.items():
        yield f"function {name}", function.attributes
        for block in function.blocks.values():
            for inner in (block, *(b for op in walk(block) for b in op.blocks)):
                yield f"a block of function {name}", inner.attributes


def walk(block: Block) -> Iterator[Operation]:
    """Yields every operation of `block` in order, each before those of its own blocks."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from walk(inner)


def is_constant(operation: Operation) -> bool:
    """Whether its outputs are known when the program is loaded: a const or a packed weight."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


def uses(operation: Operation) -> Iterator[str]:
    """Yields the names that `operation` and its blocks refer to, those inside the blocks
    included."""
    yield from operation.references()
    for block in operation.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from uses(inner)


def blobs(operation: Operation) -> Iterator[Blob]:
    """Yields the blobs of `operation` and of its blocks."""
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
    """Returns `block` with every operation changed, each before those of its own blocks."""
    return expanded(block, lambda operation: (change(operation),))


def expanded(block: Block, change: Callable[[Operation], tuple[Operation, ...]]) -> Block:
    """Returns `block` with several operations for each, all of them before those of their own
    blocks."""
    changed = chain.from_iterable(map(change, block.operations))
    return replace(block, operations=tuple(
        replace(operation, blocks=tuple(expanded(b, change) for b in operation.blocks))
        for operation in changed))


def renamed(operation: Operation, names: Mapping[str, str]) -> Operation:
    """Returns `operation` with what its arguments refer to called by `names`."""
    return replace(operation, inputs={
        key: tuple(names.get(b, b) if isinstance(b, str) else b for b in bindings)
        for key, bindings in operation.inputs.items()
    })


def fresh(name: str, taken: set[str]) -> str:
    """Returns `name`, or the first of `name_1`, `name_2`, … that is not taken; takes it."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
