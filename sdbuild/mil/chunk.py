"""Chunk: a program cut into several that run in a row, their blobs copied, never decoded.

`_Layout` is what the choice of cuts needs to know, from one pass over the operations; a cut is a
position among those that compute. Constants belong to no side: each goes with whoever uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

from sdbuild.errors import MILError, UnsupportedFormat
from sdbuild.mil.dtype import packed_bytes
from sdbuild.mil.edit import (
    Weights,
    blobs,
    is_constant,
    rebuilt,
    refuse_existing,
    uses,
    walk,
    write_edited,
)
from sdbuild.mil.package import Model, read_package
from sdbuild.mil.program import (
    Blob,
    Block,
    Function,
    NamedType,
    Operation,
    Program,
    TensorType,
    Type,
    string,
)
from sdbuild.mil.proto import Message, messages

TOLERANCE = 0.15
"""How far from an equal share of the bytes a chunk may be for the sake of a smaller crossing."""

_FEATURES = {"fp16": "fp32", "fp32": "fp32", "int32": "int32"}
"""How a value crosses: as the data type that hosts expect of a feature."""

_ARRAY_TYPES = {"fp32": "FLOAT32", "int32": "INT32"}
_MOST_DIMENSIONS = 5  # of a feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A value that one chunk gives to the next, and the feature that carries it."""

    value: str
    type: TensorType
    feature: str

    @property
    def feature_type(self) -> TensorType:
        """The type of the feature: floats cross as fp32."""
        return replace(self.type, dtype=_FEATURES[self.type.dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one chunk holds.

    Units:
        blob_bytes: of the constants in its weight file, without alignment.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: int
    blob_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """The chunks, and what crosses between each and the next."""

    chunks: tuple[Chunk, ...]
    crossings: tuple[tuple[Crossing, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """A block's operations, in the terms of where it can be cut.

    `computing` are the operations that are no constants; `made` and `last_used` are positions
    among them, a value that leaves the block being used at the end. Cut `c` lies before
    `computing[c]`. `constants` are the operations by the names that they give.
    """

    block: Block
    computing: tuple[Operation, ...]
    constants: Mapping[str, Operation]
    types: Mapping[str, Type]
    made: Mapping[str, int]
    last_used: Mapping[str, int]


def chunk(source: Path, destinations: Sequence[Path]) -> ChunkReport:
    """Cuts the package `source` into as many as there are `destinations`, to be run in a row.

    The cuts are those that cross the fewest bytes among the ones that leave each chunk within
    `TOLERANCE` of an equal share of the weights, or the nearest to it where there is none. The
    first chunk has all inputs of the whole, the last exactly its outputs; a value that is used
    beyond the next chunk is passed on through it.

    Before:
        a = f(x) ; b = g(a) ; out = h(a, b, y)
    After, cut before h:
        a = f(x) ; b = g(a) ; a_chunk1 = cast(a, "fp32") ; b_chunk1 = cast(b, "fp32")
        a = cast(a_chunk1, "fp16") ; b = cast(b_chunk1, "fp16") ; out = h(a, b, y)

    Raises:
        MILError: there are fewer than two destinations, one exists, or there are not enough places
            where only tensors of fp16, fp32 or int32 of one to five known dimensions cross.
        UnsupportedFormat: the program has several functions, states or flexible shapes.
    """
    if len(destinations) < 2:
        raise MILError(f"{source}: {len(destinations)} chunks, expected two or more")
    for path in destinations:
        refuse_existing(path)
    model = read_package(source)
    _check(model)
    layout = _layout(model.program.main.block)
    cuts = _cuts(model, layout, len(destinations))
    crossings = _crossings(model, layout, cuts)
    edges = (0, *cuts, len(layout.computing))
    chunks = tuple(
        _write(_Part(model=model, layout=layout, start=start, stop=stop, before=before,
                     after=after), path)
        for (start, stop), before, after, path in zip(
            pairwise(edges), (None, *crossings), (*crossings, None), destinations, strict=True
        )
    )
    return ChunkReport(chunks=chunks, crossings=crossings)


def _check(model: Model) -> None:
    if len(model.program.functions) != 1 or len(model.program.main.blocks) != 1:
        raise UnsupportedFormat(f"{model.source}: several functions or opsets cannot be chunked")
    for item in model.program.main.inputs:
        if not isinstance(item.type, TensorType) or item.type.count is None:
            raise UnsupportedFormat(
                f"{model.source}: input {item.name} has the type {item.type},"
                " expected a tensor of known shape",
                hint="convert with a fixed shape and without states, then chunk",
            )


def _layout(block: Block) -> _Layout:
    computing = tuple(op for op in block.operations if not is_constant(op))
    made = {out.name: at for at, op in enumerate(computing) for out in op.outputs}
    last = {name: at for at, op in enumerate(computing) for name in uses(op) if name in made}
    last |= {name: len(computing) for name in block.outputs if name in made}
    constants = {out.name: op for op in block.operations if is_constant(op) for out in op.outputs}
    types = {out.name: out.type for op in computing for out in op.outputs}
    return _Layout(block=block, computing=computing, constants=constants, types=types, made=made,
                   last_used=last)


def _cuts(model: Model, layout: _Layout, chunks: int) -> tuple[int, ...]:
    """The positions of the cuts, ascending."""
    legal, crossing = _costs(layout)
    before = _bytes_before(model, layout)
    places = [cut for cut in range(1, len(layout.computing)) if legal[cut]]
    if len(places) < chunks - 1:
        raise MILError(
            f"{model.source}: {len(places)} places to cut, expected {chunks - 1} or more: at all"
            " others a value crosses that cannot be a feature", hint="use fewer chunks",
        )
    share = before[-1] / chunks
    slack = TOLERANCE * share / (1 if chunks == 2 else 2)  # a middle chunk has two movable ends
    cuts: list[int] = []
    for number in range(1, chunks):
        free = places[:len(places) - (chunks - 1 - number)]  # leaves one for each cut to come
        free = [cut for cut in free if not cuts or cut > cuts[-1]]
        cuts.append(_best(free, before, crossing, number * share, slack))
    return tuple(cuts)


def _best(
    free: Sequence[int], before: Sequence[int], crossing: Sequence[int], wanted: float, slack: float
) -> int:
    """The cut that crosses least among those near `wanted` bytes, or else the nearest."""
    near = [cut for cut in free if abs(before[cut] - wanted) <= slack]
    if near:
        return min(near, key=lambda cut: (crossing[cut], abs(before[cut] - wanted), cut))
    return min(free, key=lambda cut: (abs(before[cut] - wanted), crossing[cut], cut))


def _costs(layout: _Layout) -> tuple[list[bool], list[int]]:
    """For each cut, whether it is legal, and the bytes that cross it as features."""
    size = len(layout.computing) + 1
    illegal, crossing = [0] * (size + 1), [0] * (size + 1)
    for name, last in layout.last_used.items():
        first, kind = layout.made[name] + 1, layout.types[name]
        target, amount = (crossing, _feature_bytes(kind)) if _can_cross(kind) else (illegal, 1)
        target[first] += amount
        target[last + 1] -= amount
    return [not count for count in accumulate(illegal)], list(accumulate(crossing))


def _can_cross(kind: Type) -> bool:
    return (
        isinstance(kind, TensorType)
        and kind.dtype in _FEATURES
        and 1 <= len(kind.shape) <= _MOST_DIMENSIONS
        and kind.count is not None
    )


def _feature_bytes(kind: Type) -> int:
    return packed_bytes(_FEATURES[kind.dtype], kind.count)


def _bytes_before(model: Model, layout: _Layout) -> list[int]:
    """For each cut, the bytes of the blobs that the operations before it use, each once."""
    seen: set[Blob] = set()
    total, before = 0, [0]
    for operation in layout.computing:
        for blob in _blobs(layout, operation):
            if blob not in seen:
                seen.add(blob)
                total += model.reader(blob.file).record(blob.offset).size_bytes
        before.append(total)
    return before


def _blobs(layout: _Layout, operation: Operation) -> Iterator[Blob]:
    """The blobs of an operation and of the constants that it uses, directly or not."""
    yield from blobs(operation)
    for name in _constants(layout, uses(operation)):
        yield from blobs(layout.constants[name])


def _constants(layout: _Layout, names: Iterator[str] | Sequence[str]) -> set[str]:
    """The names of constants among `names`, and of those that these are made of."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in layout.constants and name not in found:
            found.add(name)
            waiting.extend(uses(layout.constants[name]))
    return found


def _crossings(
    model: Model, layout: _Layout, cuts: Sequence[int]
) -> tuple[tuple[Crossing, ...], ...]:
    """What crosses each cut, in the order in which it is made, under names of its own."""
    made = sorted(layout.last_used, key=layout.made.__getitem__)
    tag = _tag(model, layout)
    return tuple(
        tuple(
            Crossing(value=name, type=layout.types[name], feature=f"{name}{tag}{number}")
            for name in made if layout.made[name] < cut <= layout.last_used[name]
        )
        for number, cut in enumerate(cuts, 1)
    )


def _tag(model: Model, layout: _Layout) -> str:
    """What marks the names of features between chunks; no name of the program contains it."""
    names = {item.name for item in model.program.main.inputs}
    names.update(out.name for op in walk(layout.block) for out in op.outputs)
    tag = "_chunk"
    while any(tag in name for name in names):
        tag += "_"
    return tag


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One chunk to be written: the computing operations from `start` to before `stop`.

    `before` and `after` are what crosses into it and out of it, None at the ends of the row.
    """

    model: Model
    layout: _Layout
    start: int
    stop: int
    before: tuple[Crossing, ...] | None
    after: tuple[Crossing, ...] | None


def _write(part: _Part, path: Path) -> Chunk:
    block = _part_block(part)
    inputs = _inputs(part, block)
    records = [part.model.reader(b.file).record(b.offset)
               for b in {blob for op in block.operations for blob in blobs(op)}]

    def edit(weights: Weights) -> tuple[Program, Message]:
        main = part.model.program.main
        name = next(iter(part.model.program.functions))
        function: Function = replace(
            main, inputs=inputs, blocks={main.opset: rebuilt(block, weights.carry)}
        )
        return replace(part.model.program, functions={name: function}), _description(part, inputs)

    write_edited(part.model, path, edit)
    return Chunk(
        path=path, inputs=tuple(item.name for item in inputs), outputs=block.outputs,
        operations=len(block.operations), blob_bytes=sum(r.size_bytes for r in records),
    )


def _part_block(part: _Part) -> Block:
    """The block of one chunk: what comes in, constants and operations in order, what goes out."""
    layout = part.layout
    computing = layout.computing[part.start:part.stop]
    outputs = (
        layout.block.outputs if part.after is None else tuple(c.feature for c in part.after)
    )
    used = [*outputs, *(name for op in computing for name in uses(op))]
    kept = {id(layout.constants[name]) for name in _constants(layout, used)}
    kept.update(map(id, computing))
    entering = [
        op for c in part.before or () for op in _recast(c.feature, c.value, c.type.dtype, c)
    ]
    leaving = [
        op for c in part.after or ()
        for op in _recast(c.value, c.feature, c.feature_type.dtype, c)
    ]
    middle = [op for op in layout.block.operations if id(op) in kept]
    return replace(layout.block, operations=(*entering, *middle, *leaving), outputs=outputs)


def _recast(source: str, target: str, dtype: str, crossing: Crossing) -> list[Operation]:
    """The operations that make `target` of `source` at a cut, a cast or only another name."""
    kind = replace(crossing.type, dtype=dtype)
    result = (NamedType(target, kind),)
    if crossing.type == crossing.feature_type:
        return [Operation(type="identity", inputs={"x": (source,)}, outputs=result,
                          attributes={"name": string(target)})]
    mode = f"{crossing.feature}_dtype"
    const = Operation(type="const", outputs=(NamedType(mode, TensorType("string")),),
                      attributes={"name": string(mode), "val": string(dtype)})
    cast = Operation(type="cast", inputs={"dtype": (mode,), "x": (source,)}, outputs=result,
                     attributes={"name": string(target)})
    return [const, cast]


def _inputs(part: _Part, block: Block) -> tuple[NamedType, ...]:
    """The inputs of a chunk: all of the whole for the first, for others those that it uses."""
    main = part.model.program.main
    if part.before is None:
        return main.inputs
    used = {name for op in block.operations for name in uses(op)} | set(block.outputs)
    return (
        *(item for item in main.inputs if item.name in used),
        *(NamedType(c.feature, c.feature_type) for c in part.before),
    )


def _description(part: _Part, inputs: Sequence[NamedType]) -> Message:
    """The description of the whole with the features of the chunk."""
    model = part.model
    description = type(model.description)()
    description.CopyFrom(model.description)
    del description.input[:]
    description.input.extend(model.inputs[i.name] for i in inputs if i.name in model.inputs)
    description.input.extend(map(_feature, part.before or ()))
    if part.after is not None:
        for name in ("output", "predictedFeatureName", "predictedProbabilitiesName"):
            description.ClearField(name)
        description.output.extend(map(_feature, part.after))
    return description


def _feature(crossing: Crossing) -> Message:
    array_type = messages("FeatureTypes").ArrayFeatureType
    kind = crossing.feature_type
    feature = messages("Model").FeatureDescription(name=crossing.feature)
    feature.type.multiArrayType.shape.extend(kind.shape)
    feature.type.multiArrayType.dataType = array_type.ArrayDataType.Value(_ARRAY_TYPES[kind.dtype])
    return feature
