"""Positions where a program can be cut: the values that cross each, and the bytes before it.

`Layout` is what the choice needs to know, from one pass over the operations; a cut is a position
among those that compute. Constants belong to no side: each goes with what uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import accumulate

from sdbuild.base.errors import MILError
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.dtype import packed_bytes
from sdbuild.mil.ir.program import Blob, Block, Function, Operation, TensorType, Type, as_tensor
from sdbuild.mil.ir.traverse import blobs, is_constant, uses, walk

TOLERANCE = 0.15
"""The largest deviation of a chunk from an equal share of the bytes, for a smaller crossing."""

_FEATURES = {"fp16": "fp32", "fp32": "fp32", "int32": "int32"}
"""Data types of values that cross between chunks, as the types of features that hosts expect."""

_MOST_DIMENSIONS = 5  # of a feature

_CHEAP = frozenset({"cast", "expand_dims", "identity", "reshape", "silu", "squeeze", "transpose"})
"""Operations without weights that cost less to repeat than their result costs to carry."""


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
class Layout:
    """A block's operations, in the terms of where it can be cut.

    `computing` are the operations that are no constants; `made` and `last_used` are positions
    among them, a value that leaves the block being used at the end. Cut `c` lies before
    `computing[c]`. `constants` are the operations by the names that they give. `remade` are the
    values that any chunk makes again from the inputs of the whole, which hosts give to all.
    """

    block: Block
    computing: tuple[Operation, ...]
    constants: Mapping[str, Operation]
    types: Mapping[str, Type]
    made: Mapping[str, int]
    last_used: Mapping[str, int]
    remade: frozenset[str]


def cuts_of(model: Model, layouts: Mapping[str, Layout], chunks: int) -> dict[str, tuple[int, ...]]:
    """Returns the positions of the cuts in each function, ascending.

    Those of the first function are the best; others are cut where the same weights lie before the
    cut, so that each chunk has weights of its own and no other chunk has them too.
    """
    (name, layout), *others = layouts.items()
    found = {name: best_cuts(model, layout, chunks)}
    before = _bytes_before(model, layout)
    wanted = [before[cut] for cut in found[name]]
    return found | {other: _cuts_at(model, layout, wanted) for other, layout in others}


def _cuts_at(model: Model, layout: Layout, wanted: Sequence[int]) -> tuple[int, ...]:
    """Returns the cuts that cross least of those with so many bytes before them, or nearest to
    it."""
    before, places, crossing = _places(model, layout, len(wanted) + 1)
    return _chosen(places, before, crossing, wanted, 0)


def layout_of(function: Function) -> Layout:
    """Returns what there is to know of a function before it is cut."""
    block = function.block
    computing = tuple(op for op in block.operations if not is_constant(op))
    made = {out.name: at for at, op in enumerate(computing) for out in op.outputs}
    last = {name: at for at, op in enumerate(computing) for name in uses(op) if name in made}
    last |= {name: len(computing) for name in block.outputs if name in made}
    constants = {out.name: op for op in block.operations if is_constant(op) for out in op.outputs}
    types = {out.name: out.type for op in computing for out in op.outputs}
    given = {item.name for item in function.inputs}
    given |= {name for name, op in constants.items() if op.type == "const" and not any(blobs(op))}
    return Layout(block=block, computing=computing, constants=constants, types=types, made=made,
                  last_used=last, remade=_remade(computing, given))


def _remade(computing: Sequence[Operation], given: Set[str]) -> frozenset[str]:
    """Returns what cheap operations make of what is given, or of what they made of it."""
    found: set[str] = set()
    for operation in computing:
        if operation.type in _CHEAP and all(
                name in given or name in found for name in operation.references()):
            found.update(out.name for out in operation.outputs)
    return frozenset(found)


def best_cuts(model: Model, layout: Layout, chunks: int) -> tuple[int, ...]:
    """Returns the positions of the cuts, ascending."""
    before, places, crossing = _places(model, layout, chunks)
    share = before[-1] / chunks
    slack = TOLERANCE * share / (1 if chunks == 2 else 2)  # a middle chunk has two movable ends
    wanted = [number * share for number in range(1, chunks)]
    return _chosen(places, before, crossing, wanted, slack)


def _places(
    model: Model, layout: Layout, chunks: int
) -> tuple[list[int], list[int], list[int]]:
    """Returns for each cut the bytes before it, which cuts are legal, and what crosses each.

    Raises:
        MILError: there are too few that are legal.
    """
    legal, crossing = _costs(layout)
    places = [cut for cut in range(1, len(layout.computing)) if legal[cut]]
    if len(places) < chunks - 1:
        raise MILError(
            f"{model.source}: {len(places)} places to cut, expected {chunks - 1} or more: at all"
            " others a value crosses that cannot be a feature", hint="use fewer chunks",
        )
    return _bytes_before(model, layout), places, crossing


def _chosen(
    places: Sequence[int], before: Sequence[int], crossing: Sequence[int],
    wanted: Sequence[float], slack: float,
) -> tuple[int, ...]:
    """Returns a cut for each of the bytes that are wanted before it."""
    cuts: list[int] = []
    for number, share in enumerate(wanted, 1):
        free = places[:len(places) - (len(wanted) - number)]  # leaves one for each cut to come
        free = [cut for cut in free if not cuts or cut > cuts[-1]]
        cuts.append(_best(free, before, crossing, share, slack))
    return tuple(cuts)


def _best(
    free: Sequence[int], before: Sequence[int], crossing: Sequence[int], wanted: float, slack: float
) -> int:
    """Returns the cut that crosses least among those near `wanted` bytes, or else the nearest."""
    near = [cut for cut in free if abs(before[cut] - wanted) <= slack]
    if near:
        return min(near, key=lambda cut: (crossing[cut], abs(before[cut] - wanted), cut))
    return min(free, key=lambda cut: (abs(before[cut] - wanted), crossing[cut], cut))


def _costs(layout: Layout) -> tuple[list[bool], list[int]]:
    """For each cut, whether it is legal, and the bytes that cross it as features."""
    size = len(layout.computing) + 1
    illegal, crossing = [0] * (size + 1), [0] * (size + 1)
    for name, last in layout.last_used.items():
        if name in layout.remade:
            continue
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
    tensor = as_tensor(kind)
    return packed_bytes(_FEATURES[tensor.dtype], tensor.elements)


def _bytes_before(model: Model, layout: Layout) -> list[int]:
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


def _blobs(layout: Layout, operation: Operation) -> Iterator[Blob]:
    """Yields the blobs of an operation and of the constants that it uses, directly or not."""
    yield from blobs(operation)
    for name in constants_of(layout, uses(operation)):
        yield from blobs(layout.constants[name])


def constants_of(layout: Layout, names: Iterator[str] | Sequence[str]) -> set[str]:
    """Returns the names of constants among `names`, and of those that these are made of."""
    return _behind(names, layout.constants)


def remade_at(layout: Layout, start: int, names: Iterator[str] | Sequence[str]) -> set[str]:
    """Returns the names of what a chunk that begins at `start` makes again of `names`, and of what
    these are made of."""
    before = {out.name: op for op in layout.computing[:start] for out in op.outputs
              if out.name in layout.remade}
    return _behind(names, before)


def _behind(names: Iterator[str] | Sequence[str], known: Mapping[str, Operation]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found.add(name)
            waiting.extend(uses(known[name]))
    return found


def crossings_at(
    model: Model, layout: Layout, cuts: Sequence[int]
) -> tuple[tuple[Crossing, ...], ...]:
    """Returns what crosses each cut, in the order in which it is made, under names of its own."""
    made = sorted(layout.last_used, key=layout.made.__getitem__)
    tag = _tag(model)
    return tuple(
        tuple(
            Crossing(value=name, type=as_tensor(layout.types[name]),
                     feature=f"{name}{tag}{number}")
            for name in made
            if layout.made[name] < cut <= layout.last_used[name] and name not in layout.remade
        )
        for number, cut in enumerate(cuts, 1)
    )


def _tag(model: Model) -> str:
    """Returns what marks the names of features between chunks; no name of the program contains
    it."""
    names: set[str] = set()
    for function in model.program.functions.values():
        names.update(item.name for item in function.inputs)
        names.update(out.name for op in walk(function.block) for out in op.outputs)
    tag = "_chunk"
    while any(tag in name for name in names):
        tag += "_"
    return tag
