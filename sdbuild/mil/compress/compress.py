"""Weights replaced by packed ones: what `palettize.py`, `quantize.py` and `sparsify.py` share.

All walk a program, pack the constants that a `Selection` takes, each by itself and in its own
thread, and write them in the order of the program, so one tensor a worker is in memory at a time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from sdbuild.base.errors import MILError
from sdbuild.base.garbage import rare_searches
from sdbuild.base.progress import each
from sdbuild.mil.compress.packed_weights import (
    Axes,
    Method,
    Packed,
    Part,
    Task,
    TensorReport,
    Unpacking,
)
from sdbuild.mil.edit.rewrite import Weights, write_edited
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.blob import Blobs
from sdbuild.mil.files.destination import refuse_existing
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.validate import read_sound
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import (
    Binding,
    Blob,
    Block,
    Function,
    NamedType,
    Operation,
    Program,
    TensorType,
    Value,
    string,
)
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import expanded, fresh, renamed, used_constants, walk

ARGUMENT_OPSET = 8  # CoreML8, iOS 18: packed weights are arguments, of any number of bits
_FIRST_OPSET = 6  # CoreML6, iOS 16: the first with packed weights, as attributes
_INLINE_ELEMENTS = 10  # fewer are written in the program (coremltools `should_use_weight_file`)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Change = Callable[[Function, Block], Block]
"""Changes a block whose weights are packed, of a function as it was before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The constants to pack, and their bits.

    `mixed` gives name patterns their own bits, the first that matches counts; `skip` are name
    patterns, and `skip_types` types of operations, whose constants stay as they are.
    """

    nbits: int
    min_elements: int = 2048
    skip: Sequence[str] = ()
    skip_types: Sequence[str] = ()
    mixed: Mapping[str, int] = field(default_factory=dict)

    def bits(self, name: str) -> int:
        """Returns the bits of the constant `name`."""
        return next((b for p, b in self.mixed.items() if fnmatchcase(name, p)), self.nbits)

    def takes(self, name: str, value: Value) -> bool:
        """Whether it is a large float tensor in the weight file that is not to be skipped."""
        kind = value.type
        return (
            isinstance(value.data, Blob)
            and isinstance(kind, TensorType)
            and kind.dtype in ("fp16", "fp32")
            and len(kind.shape) > 1
            and (kind.count or 0) > self.min_elements
            and not any(fnmatchcase(name, pattern) for pattern in self.skip)
        )


@rare_searches()
def compress(
    source: Path, destination: Path, selection: Selection, method: Method, workers: int,
    weights: Blobs | None = None, change: Change | None = None,
) -> tuple[TensorReport, ...]:
    """Writes `source` to `destination` with the selected weights packed by `method`.

    `weights` are the blobs of a package that comes without its weight file; `change` is what else
    is done to each block, once its weights are packed.

    Raises:
        MILError: the opset lacks the method, weights are packed already, a pattern fits no
            constant, a tensor cannot be packed, or `destination` exists or lies in `source`.
        InvalidProgram: `source` is not a sound package.
    """
    refuse_existing([source], [destination])
    model = read_sound(source, weights)
    _check(model, selection, method)
    reports: list[TensorReport] = []

    def edit(weights: Weights) -> tuple[Program, Message]:
        program = _program(model, selection, method, weights, workers, reports)
        return _changed(program, model.program, change), model.description

    write_edited(model, destination, edit)
    return tuple(reports)


def _changed(packed: Program, source: Program, change: Change | None) -> Program:
    if change is None:
        return packed
    return replace(packed, functions={
        name: replace(function, blocks={
            opset: change(source.functions[name], block)
            for opset, block in function.blocks.items()})
        for name, function in packed.functions.items()})


def _check(model: Model, selection: Selection, method: Method) -> None:
    """Refuses what cannot be packed as asked, before anything is written."""
    names: set[str] = set()
    types: set[str] = set()
    for function in model.program.functions.values():
        for opset, block in function.blocks.items():
            _check_opset(model.source, opset)
            for bits in (selection.nbits, *selection.mixed.values()):
                method.allows(bits, opset_number(opset))
            _check_unpacked(model.source, block)
            names.update(op.outputs[0].name for op in walk(block) if op.type == "const")
            types.update(op.type for op in walk(block))
    for kind in selection.skip_types:
        if kind not in types:
            near = get_close_matches(kind, types, n=1)
            meant = f'; did you mean "{near[0]}"?' if near else ""
            raise MILError(f"{model.source}: no operation is a {kind!r}{meant}",
                           hint="`sdbuild mil ops PACKAGE` lists their types")
    for pattern in (*selection.skip, *selection.mixed):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MILError(f"{model.source}: no constant is called {pattern!r}",
                           hint="`sdbuild mil weights PACKAGE` lists their names")


def opset_number(opset: str) -> int:
    """Returns the number of an opset: 6 for `CoreML6`.

    Raises:
        MILError: it is not called so.
    """
    number = opset.removeprefix("CoreML")
    if not number.isdecimal():
        raise MILError(f"opset {opset!r}, expected one like CoreML6")
    return int(number)


def _check_opset(source: Path, opset: str) -> None:
    if opset_number(opset) < _FIRST_OPSET:
        raise MILError(f"{source}: opset {opset} has no packed weights, expected"
                       f" CoreML{_FIRST_OPSET} or later", hint="convert for iOS 16 or later")


def _check_unpacked(source: Path, block: Block) -> None:
    packed = [op for op in walk(block) if op.type.startswith("constexpr_")]
    if packed:
        raise MILError(
            f"{source}: weights are packed already, the first is {packed[0].name}"
            f" ({packed[0].type})", hint="start from the package that was converted",
        )


def _program(
    model: Model, selection: Selection, method: Method, weights: Weights, workers: int,
    reports: list[TensorReport],
) -> Program:
    """Returns the program of `model`, packed; appends a report for each tensor to `reports`."""
    blocks = {
        (name, opset): used_constants(block)
        for name, function in model.program.functions.items()
        for opset, block in function.blocks.items()
    }
    chosen = {at: tasks(block, selection, as_argument=opset_number(at[1]) >= ARGUMENT_OPSET)
              for at, block in blocks.items()}
    unique = {t.key: t for t in chain.from_iterable(tasks.values() for tasks in chosen.values())}
    done = in_order(partial(_pack, model, method), unique.values(), workers)
    results = each(done, "tensors", len(unique))
    packed = _PackedWeights(weights, results, reports)
    made = {at: _block(block, method.suffixes, chosen[at], weights, packed)
            for at, block in blocks.items()}
    return replace(model.program, functions={
        name: replace(function, blocks={opset: made[name, opset] for opset in function.blocks})
        for name, function in model.program.functions.items()
    })


def tasks(block: Block, selection: Selection, *, as_argument: bool) -> dict[str, Task]:
    """Returns the constants of `block` to pack, by name, in order; none that a block gives out."""
    kept = set(block.outputs)
    for operation in walk(block):
        kept.update(chain.from_iterable(inner.outputs for inner in operation.blocks))
        if operation.type in selection.skip_types:
            kept.update(operation.references())
    consts = {op.outputs[0].name: op.attributes["val"] for op in walk(block) if op.type == "const"}
    taken = {name: value for name, value in consts.items()
             if name not in kept and selection.takes(name, value)}
    axes = _axes(block, taken, consts)
    return {name: Task(name, value, selection.bits(name), axes[name], as_argument)
            for name, value in taken.items()}


def _axes(
    block: Block, taken: Mapping[str, Value], consts: Mapping[str, Value]
) -> dict[str, Axes | None]:
    """Returns the axes of each constant that is taken."""
    found: dict[str, set[Axes]] = defaultdict(set)
    for operation in walk(block):
        for argument, bindings in operation.inputs.items():
            for name in bindings:
                if isinstance(name, str) and name in taken:
                    rank = len(taken[name].tensor.shape)
                    found[name].add(_axes_for(operation, argument, rank, consts))
    return {name: found[name].pop() if len(found[name]) == 1 else None for name in taken}


def _axes_for(
    operation: Operation, argument: str, rank: int, consts: Mapping[str, Value]
) -> Axes:
    """Returns the axes of the weight that is given as `argument`.

    Source:
        coremltools 9.0, `select_input_output_channel_axis` (BSD-3-Clause).
    """
    if operation.type == "conv_transpose":
        return Axes(1, 0)
    if operation.type == "matmul" and argument in ("x", "y"):
        is_transposed = _flag(operation, f"transpose_{argument}", consts)
        last_is_output = is_transposed != (argument == "y")
        return Axes(rank - 1, rank - 2) if last_is_output else Axes(rank - 2, rank - 1)
    return Axes(0, 1)


def _flag(operation: Operation, argument: str, consts: Mapping[str, Value]) -> bool:
    for binding in operation.inputs.get(argument, ()):
        value = consts.get(binding) if isinstance(binding, str) else binding
        return value is not None and bool(to_array(None, value))
    return False


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """Yields `work` of each item in order, at most one more than `workers` of them in memory."""
    if workers <= 1:
        yield from map(work, items)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _pack(model: Model, method: Method, task: Task) -> Packed | None:
    try:
        return method.pack(task, to_array(model, task.value))
    except MILError as error:
        where = f"{model.source}: weight {task.name}"
        raise type(error)(f"{where}: {error.message}", hint=error.hint, **error.facts) from error


_Written = tuple[Unpacking, Mapping[str, Value | None]]


class _PackedWeights:
    """Packed weights, taken from the workers in order, each written when first asked for."""

    def __init__(
        self, weights: Weights, results: Iterator[Packed | None], reports: list[TensorReport]
    ) -> None:
        self._weights = weights
        self._results = results
        self._reports = reports
        self._written: dict[tuple[object, ...], tuple[_Written, ...]] = {}

    def operations(self, names: Sequence[str], task: Task) -> tuple[Operation, ...]:
        """Returns the operations called `names` that unpack the tensor of `task`; none if it
        stays."""
        if task.key not in self._written:
            packed = next(self._results)
            if packed is not None:
                self._reports.append(packed.report)
            self._written[task.key] = tuple(map(self._write, packed.operations if packed else ()))
        written = self._written[task.key]
        before = ("", *names)[:len(written)]
        return tuple(
            _operation(name, unpacking, {key: value or last for key, value in values.items()},
                       task.as_argument)
            for name, last, (unpacking, values) in zip(names, before, written, strict=False))

    def _write(self, unpacking: Unpacking) -> _Written:
        """Writes the parts; what is kept of them is where they lie, not their bytes."""
        return replace(unpacking, parts={}), {
            key: self._value(part) if part is not None else None
            for key, part in unpacking.parts.items()}

    def _value(self, part: Part) -> Value:
        kind, data = part.type, part.data
        if (kind.count or 0) < _INLINE_ELEMENTS:
            return Value(kind, bytes(data))
        padding_bits = len(data) * 8 - (kind.count or 0) * DTYPES[kind.dtype].bits
        return Value(kind, self._weights.append(kind.dtype, data, padding_bits))


def _operation(
    name: str, unpacking: Unpacking, bound: Mapping[str, Binding], as_argument: bool
) -> Operation:
    inputs = {key: (binding,) for key, binding in bound.items()} if as_argument else {}
    attributes = {} if as_argument else {
        key: value for key, value in bound.items() if isinstance(value, Value)}
    return Operation(type=unpacking.operation, inputs=inputs,
                     attributes={**attributes, "name": string(name)},
                     outputs=(NamedType(name, unpacking.result),))


def _block(
    block: Block, suffixes: Sequence[str], tasks: Mapping[str, Task], weights: Weights,
    packed: _PackedWeights,
) -> Block:
    """Returns `block` with the constants of `tasks` packed and all other blobs copied."""
    taken = {out.name for op in walk(block) for out in op.outputs}
    names: dict[str, str] = {}

    def change(operation: Operation) -> tuple[Operation, ...]:
        name = operation.outputs[0].name if operation.type == "const" else ""
        if name in tasks:
            wanted = [fresh(f"{name}{suffix}", taken) for suffix in suffixes]
            if made := packed.operations(wanted, tasks[name]):
                names[name] = wanted[-1]
                return made
        return (renamed(weights.carry(operation), names),)

    return expanded(block, change)
