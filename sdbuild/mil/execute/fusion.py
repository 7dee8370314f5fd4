"""The fast form of a plan: chains of operations that run slice by slice, in the cache.

    matmul → softmax → matmul          for each slice of rows: all three
    add → mul → silu                   likewise

The values between them have no other readers, so they are never whole. Each slice goes through
the same functions and the same rounding as in the plan, which stays the definition (to the bit
with one thread; with several, a matrix library may sum in another order); the result
takes the place of an operand that is not needed any more, because fresh memory costs more than
the arithmetic: its pages are faulted in. `execute.py` uses this form when nobody observes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdbuild.mil.execute.executable import ExecutableBlock, Instruction, Output, Source, fetched
from sdbuild.mil.execute.kinds import ALONG_LAST, ELEMENTWISE, FRESH, MATMUL
from sdbuild.mil.execute.ops._values import rounded
from sdbuild.mil.execute.planner import with_frees
from sdbuild.mil.ir.program import TensorType

SLICE = 1 << 19
"""Elements in a slice of the largest value; measured: smaller ones cost calls, larger ones leave
the cache."""

_LANES = 64
"""Parts hold a multiple of this many elements: kernels take those past the last whole vector
another way, with other last bits."""

_FLOATS = ("fp16", "fp32")
Part = tuple[slice, ...]
"""The part of the leading axes that a slice takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliced:
    """Instructions that run together on each part; only the last one's result is ever complete.

    `reuses` is a value that the result may be written over.
    """

    steps: tuple[Instruction, ...]
    parts: tuple[Part, ...]
    outputs: tuple[Output, ...]
    reuses: str | None = None
    frees: tuple[str, ...] = ()

    def apply(self, values: dict[str, Tensor]) -> None:
        """Adds the result to `values` and takes out what is not needed any more."""
        inner = {step.outputs[0].name for step in self.steps}
        calls = [_Call.of(step, values, inner) for step in self.steps]
        out = self._memory(values)
        for part in self.parts:
            self._run_part(calls, part, out[part])
        values[self.outputs[0].name] = out
        for name in self.frees:
            del values[name]

    def needs(self) -> Iterator[str]:
        """Yields the values from outside that the steps take."""
        made = {step.outputs[0].name for step in self.steps}
        for step in self.steps:
            yield from (name for name in step.needs() if name not in made)

    def _memory(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns where the result goes."""
        old = values.get(self.reuses) if self.reuses else None
        if old is not None and old.is_contiguous():
            return old
        return torch.empty(self.outputs[0].type.shape, dtype=torch.float32)

    def _run_part(self, calls: Sequence[_Call], part: Part, out: Tensor) -> None:
        made: dict[str, Tensor] = {}
        for step, call in zip(self.steps, calls, strict=True):
            value = step.function(**call.arguments(part, made))
            output = step.outputs[0]
            if step is self.steps[-1]:
                out.copy_(value.half() if output.is_rounded else value)
            elif output.is_rounded:
                value = rounded(value, output.type.dtype, is_owned=True)
            made[output.name] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The arguments of a step, those from outside whole; `inner` are made in each part anew."""

    constants: Mapping[str, object]
    whole: Mapping[str, tuple[Tensor, int]]
    inner: Mapping[str, str]
    rank: int

    @classmethod
    def of(cls, step: Instruction, values: Mapping[str, Tensor], inner: set[str]) -> _Call:
        rank = len(step.outputs[0].type.shape)
        whole, names, constants = {}, {}, {}
        for name, source in _tensors(step):
            if isinstance(source, str) and source in inner:
                names[name] = source
            else:
                whole[name] = (fetched(source, values), _sliced_axes(step, name, rank))
        constants = {k: v for k, v in step.constants.items() if k not in whole}
        return cls(constants=constants, whole=whole, inner=names, rank=rank)

    def arguments(self, part: Part, made: Mapping[str, Tensor]) -> dict[str, object]:
        """Returns the arguments for one part."""
        found = {name: _view(tensor, part[:axes], self.rank)
                 for name, (tensor, axes) in self.whole.items()}
        return {**self.constants, **found, **{n: made[name] for n, name in self.inner.items()}}


def _sliced_axes(step: Instruction, argument: str, rank: int) -> int:
    """Returns how many leading axes of an argument are sliced: rows of `y` meet all rows of `x`."""
    return rank - 2 if (step.operation.type, argument) == (MATMUL, "y") else rank


def _view(tensor: Tensor, part: Part, rank: int) -> Tensor:
    """Returns the part of a tensor that broadcasts to `rank` axes, aligned at the last one."""
    if tensor.ndim == 0:
        return tensor
    own = part[rank - tensor.ndim:]
    return tensor[tuple(s if n != 1 else slice(None)
                        for s, n in zip(own, tensor.shape, strict=False))]


def _tensors(step: Instruction) -> Iterator[tuple[str, Source]]:
    """Yields the arguments of a step that are single tensors, with where they come from."""
    for name, value in step.constants.items():
        if isinstance(value, Tensor):
            yield name, value
    for name, operand in step.operands.items():
        yield name, operand.sources[0]


# finding fusions


def fuse_chains(block: ExecutableBlock) -> ExecutableBlock:
    """Returns the block with chains of its steps joined; gives the same values, bit for bit.

    Nested blocks stay as they are.
    """
    chains = _chains(block)
    inside = {id(step) for chain in chains for step in chain.steps}
    ends = {id(chain.steps[-1]): chain for chain in chains}
    steps = [ends.get(id(step), step) for step in block.steps
             if id(step) in ends or id(step) not in inside]
    return replace(block, steps=with_frees(_with_reuse(steps, block.outputs), block.outputs))


def _chains(block: ExecutableBlock) -> list[Sliced]:
    """Returns the chains worth slicing; those inside are read by the next of the chain alone."""
    readers: dict[str, int] = defaultdict(int)
    for step in block.steps:
        for name in step.needs():
            readers[name] += 1
    open_groups: dict[str, list[Instruction]] = {}
    for step in block.steps:
        if not _is_sliceable(step):
            continue
        group = [step]
        for name in step.needs():
            is_inner = readers[name] == 1 and name not in block.outputs
            if is_inner and name in open_groups and _follows(step, name, open_groups[name][-1]):
                group = open_groups.pop(name) + group
        open_groups[step.outputs[0].name] = group
    order = {id(step): position for position, step in enumerate(block.steps)}
    found = [sorted(group, key=lambda s: order[id(s)]) for group in open_groups.values()]
    chains = [_joined(group) for group in found]
    return [chain for chain in chains if _is_worth_it(chain)]


def _is_sliceable(step: Instruction) -> bool:
    """Whether the parts of a step's result come from the same parts of its arguments."""
    kind, name = step.outputs[0].type if step.outputs else None, step.operation.type
    if kind is None or kind.dtype not in _FLOATS or not kind.count or len(kind.shape) < 2:
        return False
    if any(p.parameter.is_list or p.parameter.domain is None for p in step.operands.values()):
        return False
    if name in ALONG_LAST:
        return step.constants.get("axis", -1) in (-1, len(kind.shape) - 1)
    if name == MATMUL:
        return len(kind.shape) > 2 and not step.constants.get("transpose_x", False)
    return name in ELEMENTWISE


def _follows(step: Instruction, name: str, before: Instruction) -> bool:
    """Whether a step can take the parts of the result of the step `before`, called `name`."""
    shape, given = step.outputs[0].type.shape, before.outputs[0].type.shape
    if step.operation.type == MATMUL:
        return step.operands["x"].sources == (name,) and shape[:-1] == given[:-1]
    return shape == given


def _is_worth_it(chain: Sliced) -> bool:
    """Whether slicing saves anything, and changes no bit.

    A product alone is best left whole, and so is what is small.
    """
    shapes = [step.outputs[0].type.dims for step in chain.steps]
    types = {step.operation.type for step in chain.steps}
    counts = {math.prod(s.stop - s.start for s in part) * shapes[-1][-1] for part in chain.parts}
    is_whole = MATMUL in types or all(count % _LANES == 0 for count in counts)
    largest = max(math.prod(shape) for shape in shapes)
    return is_whole and types != {MATMUL} and largest >= SLICE // 8


def _joined(group: Sequence[Instruction]) -> Sliced:
    shapes = [step.outputs[0].type.dims for step in group]
    largest = max(shapes, key=lambda shape: math.prod(shape))
    outputs = group[-1].outputs
    return Sliced(steps=tuple(group), outputs=outputs, parts=_parts(largest))


def _parts(shape: Sequence[int]) -> tuple[Part, ...]:
    """Parts of the leading axes with at most `SLICE` elements, if one row has no more.

    The last axis is never cut: softmax and products need it whole.
    """
    ranges = []
    for axis, size in enumerate(shape[:-1]):
        rows = max(1, SLICE // math.prod(shape[axis + 1:]))
        ranges.append([slice(i, min(i + rows, size)) for i in range(0, size, rows)])
    return tuple(itertools.product(*ranges))


# whose memory is free


def _with_reuse(
    steps: Sequence[Instruction | Sliced], kept: Sequence[str]
) -> list[Instruction | Sliced]:
    """Returns the steps; the sliced ones know which operand they may write over."""
    roots = _roots(steps)
    last: dict[str, int] = {}
    for position, step in enumerate(steps):
        for name in step.needs():
            last |= dict.fromkeys(roots.get(name, {name}), position)
    for name in kept:
        last |= dict.fromkeys(roots.get(name, {name}), len(steps))
    kinds = {output.name: output.type for step in steps for output in step.outputs}
    ends: list[set[str]] = [set() for _ in range(len(steps) + 1)]
    for name, position in last.items():
        ends[position].add(name)
    return [
        replace(step, reuses=_reusable(step, roots, kinds, ended=ends[p]))
        if isinstance(step, Sliced) else step
        for p, step in enumerate(steps)
    ]


def _roots(steps: Sequence[Instruction | Sliced]) -> dict[str, set[str]]:
    """For each value the values whose memory it may share, itself included."""
    roots: dict[str, set[str]] = {}
    for step in steps:
        is_fresh = isinstance(step, Sliced) or step.operation.type in FRESH
        shared = set() if is_fresh else {r for n in step.needs() for r in roots.get(n, {n})}
        roots |= {output.name: shared | {output.name} for output in step.outputs}
    return roots


def _reusable(
    step: Sliced, roots: Mapping[str, set[str]], kinds: Mapping[str, TensorType],
    ended: Collection[str],
) -> str | None:
    """Returns an operand, shaped as the result, whose memory nothing else needs then or later.

    Args:
        ended: the values whose last use is this step.
    """
    shape = step.outputs[0].type.shape
    whole = {source for inner in step.steps for name, source in _tensors(inner)
             if isinstance(source, str)
             and _sliced_axes(inner, name, len(shape)) < len(shape)}
    names = set(step.needs())
    for name in sorted(names - whole):
        is_own = roots.get(name) == {name} and kinds[name].shape == shape
        others = {r for other in names - {name} for r in roots.get(other, {other})}
        if is_own and kinds[name].dtype in _FLOATS and name not in others and name in ended:
            return name
    return None
