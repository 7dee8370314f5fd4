"""Chunk: a program cut into several that run in a row, their blobs copied, never decoded.

Where it is cut is decided in `cuts.py`; here the parts are written.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sdbuild.base.errors import MILError, UnsupportedFormat
from sdbuild.mil.edit.cuts import (
    Crossing,
    Layout,
    constants_of,
    crossings_at,
    cuts_of,
    layout_of,
    remade_at,
)
from sdbuild.mil.edit.rewrite import Weights, write_edited
from sdbuild.mil.files.destination import refuse_existing
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.validate import read_sound
from sdbuild.mil.ir.program import (
    Block,
    Function,
    NamedType,
    Operation,
    Program,
    TensorType,
    string,
    type_text,
)
from sdbuild.mil.ir.proto import Message, messages
from sdbuild.mil.ir.traverse import blobs, rebuilt, uses

_ARRAY_TYPES = {"fp32": "FLOAT32", "int32": "INT32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The contents of one chunk.

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


def chunk(source: Path, destinations: Sequence[Path]) -> ChunkReport:
    """Cuts the package `source` into as many as there are `destinations`, to be run in a row.

    The cuts are those that cross the fewest bytes among the ones that leave each chunk within
    `cuts.TOLERANCE` of an equal share of the weights, or the nearest to it where there is none. The
    first chunk has all inputs of the whole, the last exactly its outputs; a value that is used
    beyond the next chunk is passed on through it. What is only another form of an input, such as a
    transposed embedding, does not cross: each chunk makes it again.

    Of several functions, each is cut at the same weights, and each chunk has all of them.

    Before:
        a = f(x) ; b = g(a) ; out = h(a, b, y)
    After, cut before h:
        a = f(x) ; b = g(a) ; a_chunk1 = cast(a, "fp32") ; b_chunk1 = cast(b, "fp32")
        a = cast(a_chunk1, "fp16") ; b = cast(b_chunk1, "fp16") ; out = h(a, b, y)

    Raises:
        MILError: there are fewer than two destinations, one exists, two are the same, one lies in
            another or in `source`, or there are not enough places where only tensors of fp16, fp32
            or int32 of one to five known dimensions cross.
        InvalidProgram: `source` is not a sound package.
        UnsupportedFormat: a function has several opsets, states or flexible shapes.
    """
    if len(destinations) < 2:
        raise MILError(f"{source}: {len(destinations)} chunks, expected two or more")
    refuse_existing([source], destinations)
    return chunk_model(read_sound(source), destinations)


def chunk_model(model: Model, destinations: Sequence[Path]) -> ChunkReport:
    """Returns `chunk` of a package that is read already, to places that are known to be free.

    What the report says of operations and crossings is of the default function.
    """
    _check(model)
    default = model.function()
    functions = sorted(model.program.functions.items(), key=lambda item: item[1] is not default)
    layouts = {name: layout_of(function) for name, function in functions}
    cuts = cuts_of(model, layouts, len(destinations))
    parts = {name: _parts(model, name, layouts[name], cuts[name]) for name, _ in functions}
    chunks = [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    first = next(iter(layouts))
    return ChunkReport(chunks=_write_all(chunks, destinations),
                       crossings=crossings_at(model, layouts[first], cuts[first]))


def _parts(model: Model, name: str, layout: Layout, cuts: Sequence[int]) -> list[_Part]:
    """Returns the chunks of one function."""
    crossings = crossings_at(model, layout, cuts)
    edges = (0, *cuts, len(layout.computing))
    return [
        _Part(model=model, name=name, layout=layout, start=start, stop=stop, before=before,
              after=after)
        for (start, stop), before, after in zip(
            pairwise(edges), (None, *crossings), (*crossings, None), strict=True)
    ]


def _write_all(
    chunks: Sequence[Mapping[str, _Part]], destinations: Sequence[Path]
) -> tuple[Chunk, ...]:
    """Writes the chunks; if one fails, those before it are removed."""
    done: list[Chunk] = []
    try:
        for parts, path in zip(chunks, destinations, strict=True):
            done.append(_write(parts, path))
    except BaseException:
        for chunk in done:
            shutil.rmtree(chunk.path)
        raise
    return tuple(done)


def _check(model: Model) -> None:
    for name, function in model.program.functions.items():
        if len(function.blocks) != 1:
            raise UnsupportedFormat(f"{model.source}: function {name}: several opsets cannot be "
                                    "chunked")
        for item in function.inputs:
            if not isinstance(item.type, TensorType) or item.type.count is None:
                raise UnsupportedFormat(
                    f"{model.source}: input {item.name} is {type_text(item.type)},"
                    " expected a tensor of known shape",
                    hint="convert with a fixed shape and without states, then chunk",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One chunk of a function: the computing operations from `start` to before `stop`.

    `before` and `after` are what crosses into it and out of it, None at the ends of the row.
    """

    model: Model
    name: str
    layout: Layout
    start: int
    stop: int
    before: tuple[Crossing, ...] | None
    after: tuple[Crossing, ...] | None

    @property
    def function(self) -> Function:
        """The function that it is a part of."""
        return self.model.program.functions[self.name]


def _write(parts: Mapping[str, _Part], path: Path) -> Chunk:
    """Writes the chunk of all functions; what is said of it is of the first."""
    built = {name: _part_block(part) for name, part in parts.items()}
    inputs = {name: _inputs(part, built[name]) for name, part in parts.items()}
    model = next(iter(parts.values())).model
    records = [model.reader(b.file).record(b.offset)
               for b in {blob for block in built.values() for op in block.operations
                         for blob in blobs(op)}]

    def edit(weights: Weights) -> tuple[Program, Message]:
        made = {name: replace(part.function, inputs=inputs[name], blocks={
                    part.function.opset: rebuilt(built[name], weights.carry)})
                for name, part in parts.items()}
        functions = {name: made[name] for name in model.program.functions}
        return replace(model.program, functions=functions), _description(model, parts, inputs)

    write_edited(model, path, edit)
    name, block = next(iter(built.items()))
    return Chunk(
        path=path, inputs=tuple(item.name for item in inputs[name]), outputs=block.outputs,
        operations=len(block.operations), blob_bytes=sum(r.size_bytes for r in records),
    )


def _part_block(part: _Part) -> Block:
    """Returns the block of one chunk: what comes in, constants and operations in order, what goes
    out."""
    layout = part.layout
    computing = layout.computing[part.start:part.stop]
    outputs = (
        layout.block.outputs if part.after is None else tuple(c.feature for c in part.after)
    )
    used = [*outputs, *(name for op in computing for name in uses(op))]
    again = [layout.computing[layout.made[name]] for name in remade_at(layout, part.start, used)]
    used += [name for op in again for name in uses(op)]
    kept = {id(layout.constants[name]) for name in constants_of(layout, used)}
    kept.update(map(id, (*again, *computing)))
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
    """Returns the operations that make `target` of `source` at a cut, a cast or only another
    name."""
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
    """Returns the inputs of a chunk: all of the whole for the first, for others those that it
    uses."""
    given = part.function.inputs
    if part.before is None:
        return given
    used = {name for op in block.operations for name in uses(op)} | set(block.outputs)
    return (
        *(item for item in given if item.name in used),
        *(NamedType(c.feature, c.feature_type) for c in part.before),
    )


def _description(
    model: Model, parts: Mapping[str, _Part], inputs: Mapping[str, Sequence[NamedType]]
) -> Message:
    """Returns the description of the whole with the features of a chunk."""
    description = type(model.description)()
    description.CopyFrom(model.description)
    for features in description.functions or [description]:
        name = getattr(features, "name", "") or next(iter(parts))
        _describe(features, parts[name], inputs[name])
    return description


def _describe(features: Message, part: _Part, inputs: Sequence[NamedType]) -> None:
    """Makes the features of a whole function those of its chunk."""
    whole = {feature.name: feature for feature in features.input}
    kept = [whole[item.name] for item in inputs if item.name in whole]
    entering = [*kept, *map(_feature, part.before or ())]
    del features.input[:]
    features.input.extend(entering)
    if part.after is not None:
        for name in ("output", "predictedFeatureName", "predictedProbabilitiesName"):
            features.ClearField(name)
        features.output.extend(map(_feature, part.after))


def _feature(crossing: Crossing) -> Message:
    array_type = messages("FeatureTypes").ArrayFeatureType
    kind = crossing.feature_type
    feature = messages("Model").FeatureDescription(name=crossing.feature)
    feature.type.multiArrayType.shape.extend(kind.shape)
    feature.type.multiArrayType.dataType = array_type.ArrayDataType.Value(_ARRAY_TYPES[kind.dtype])
    return feature
