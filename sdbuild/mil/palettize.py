"""Palettize: weights replaced by a lookup table and indices of a few bits, package to package.

One tensor a worker is in memory at a time. The palette itself is `kmeans.py`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from sdbuild.errors import MILError
from sdbuild.mil.arrays import pack_bits, to_array
from sdbuild.mil.dtype import packed_bytes
from sdbuild.mil.edit import (
    INLINE_ELEMENTS,
    Weights,
    fresh,
    rebuilt,
    renamed,
    used_constants,
    walk,
    write_edited,
)
from sdbuild.mil.kmeans import Histogram, histogram, indices, nearest, palette
from sdbuild.mil.package import Model, read_package
from sdbuild.mil.program import (
    Blob,
    Block,
    NamedType,
    Operation,
    Program,
    TensorType,
    Value,
    string,
)

NBITS = (1, 2, 3, 4, 6, 8)
_FIRST_OPSET = 6  # CoreML6, iOS 16: the first with constexpr operations
_ARGUMENT_OPSET = 8  # CoreML8, iOS 18: indices of any NBITS, as an argument
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorReport:
    """What palettizing did to one tensor.

    Units:
        bytes: in the weight file and the program, without alignment; errors: of the weight's
        values; snr_db: infinite if nothing was lost.
    """

    name: str
    bits: int
    bytes_before: int
    bytes_after: int
    rms_error: float
    max_error: float
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which constants to palettize, and with how many bits.

    `mixed` gives name patterns their own bits, the first that matches counts; `skip` are name
    patterns and `skip_types` the types of operations whose constants stay as they are.
    """

    nbits: int
    mixed: Mapping[str, int]
    skip: Sequence[str]
    skip_types: Sequence[str]
    min_elements: int

    def bits(self, name: str) -> int:
        """The bits of the constant `name`."""
        return next((b for p, b in self.mixed.items() if fnmatchcase(name, p)), self.nbits)


@dataclass(frozen=True, slots=True)
class _Task:
    """One tensor to palettize; constants of the same blob and bits share it."""

    name: str
    value: Value
    bits: int
    as_argument: bool  # in iOS 18's form

    @property
    def key(self) -> tuple[Value, int, bool]:
        return self.value, self.bits, self.as_argument


@dataclass(frozen=True, slots=True, kw_only=True)
class _Palettized:
    """A tensor's table and packed indices."""

    table: np.ndarray
    packed: bytes
    report: TensorReport


def palettize(
    source: Path, destination: Path, *, nbits: int, min_elements: int = 2048,
    skip: Sequence[str] = (), skip_types: Sequence[str] = (),
    mixed: Mapping[str, int] | None = None, workers: int = 1,
) -> tuple[TensorReport, ...]:
    """Palettizes the weights of the package `source` into a package at `destination`.

    Taken are the constants that coremltools' `palettize_weights` takes: fp16 and fp32 in the weight
    file, of two or more dimensions and more than `min_elements` elements, that are not part of a
    packed weight already; each with its own table. The order of the program is kept, so the same
    source and choice give the same bytes, whatever `workers` is.

    Before:
        w = const(val=…) ; y = conv(weight=w, …)
    After, iOS 16 and 17:
        w_palettized = constexpr_lut_to_dense[indices=…, lut=…, shape=…] ; y = conv(weight=…, …)
    After, iOS 18:
        w_palettized = constexpr_lut_to_dense(indices=…, lut=…) ; y = conv(weight=…, …)

    Raises:
        MILError: the bits are not ones that the opset has, weights are packed already, a pattern
            fits no constant, a tensor holds NaN or infinity, or `destination` exists.
        InvalidProgram: `source` is not a sound package.
    """
    choice = Choice(nbits=nbits, mixed=mixed or {}, skip=skip, skip_types=skip_types,
                    min_elements=min_elements)
    model = read_package(source)
    _check(model, choice)
    reports: list[TensorReport] = []

    def edit(weights: Weights) -> tuple[Program, object]:
        return _program(model, choice, weights, workers, reports), model.description

    write_edited(model, destination, edit)
    return tuple(reports)


def _check(model: Model, choice: Choice) -> None:
    """Refuses what cannot be palettized as asked, before anything is written."""
    names: set[str] = set()
    for function in model.program.functions.values():
        for opset, block in function.blocks.items():
            _check_bits(model.source, opset, choice)
            _check_unpacked(model.source, block)
            names.update(op.outputs[0].name for op in walk(block) if op.type == "const")
    for pattern in (*choice.skip, *choice.mixed):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MILError(f"{model.source}: no constant is called {pattern!r}",
                           hint="`python -m sdbuild mil weights PACKAGE` lists their names")


def _check_bits(source: Path, opset: str, choice: Choice) -> None:
    number = opset_number(opset)
    if number < _FIRST_OPSET:
        raise MILError(f"{source}: opset {opset} has no palettized weights, expected CoreML6 or"
                       " later", hint="convert for iOS 16 or later")
    for bits in {choice.nbits, *choice.mixed.values()}:
        if bits not in NBITS:
            allowed = ", ".join(map(str, NBITS))
            raise MILError(f"palettes of {bits} bits, expected one of {allowed}")
        if bits == 3 and number < _ARGUMENT_OPSET:
            raise MILError(f"{source}: palettes of 3 bits need opset CoreML8, found {opset}",
                           hint="convert for iOS 18, or use 2 or 4 bits")


def opset_number(opset: str) -> int:
    """The number of an opset: 6 for `CoreML6`.

    Raises:
        MILError: it is not called so.
    """
    number = opset.removeprefix("CoreML")
    if not number.isdecimal():
        raise MILError(f"opset {opset!r}, expected one like CoreML6")
    return int(number)


def _check_unpacked(source: Path, block: Block) -> None:
    packed = [op for op in walk(block) if op.type.startswith("constexpr_")]
    if packed:
        raise MILError(
            f"{source}: {len(packed)} weights are packed already, the first is {packed[0].name}"
            f" ({packed[0].type})", hint="palettize the package that was converted",
        )


def _program(
    model: Model, choice: Choice, weights: Weights, workers: int, reports: list[TensorReport]
) -> Program:
    """The program of `model`, palettized; appends a report for each table to `reports`."""
    blocks = {
        (name, opset): used_constants(block)
        for name, function in model.program.functions.items()
        for opset, block in function.blocks.items()
    }
    chosen = {
        at: _tasks(block, choice, as_argument=opset_number(at[1]) >= _ARGUMENT_OPSET)
        for at, block in blocks.items()
    }
    unique = {t.key: t for t in chain.from_iterable(tasks.values() for tasks in chosen.values())}
    results = in_order(partial(_palettized, model), unique.values(), workers)
    tables = _Tables(weights, results, reports)
    done = {at: _block(block, chosen[at], weights, tables) for at, block in blocks.items()}
    return replace(model.program, functions={
        name: replace(function, blocks={o: done[name, o] for o in function.blocks})
        for name, function in model.program.functions.items()
    })


def _tasks(block: Block, choice: Choice, *, as_argument: bool) -> dict[str, _Task]:
    """The constants of `block` to palettize, by name, in order."""
    kept = set(block.outputs)
    for operation in walk(block):
        kept.update(chain.from_iterable(inner.outputs for inner in operation.blocks))
        if operation.type in choice.skip_types:
            kept.update(operation.references())
    consts = {op.outputs[0].name: op.attributes["val"] for op in walk(block) if op.type == "const"}
    return {
        name: _Task(name, value, choice.bits(name), as_argument)
        for name, value in consts.items() if name not in kept and _is_taken(name, value, choice)
    }


def _is_taken(name: str, value: Value, choice: Choice) -> bool:
    kind = value.type
    return (
        isinstance(value.data, Blob)
        and isinstance(kind, TensorType)
        and kind.dtype in ("fp16", "fp32")
        and len(kind.shape) > 1
        and (kind.count or 0) > choice.min_elements
        and not any(fnmatchcase(name, pattern) for pattern in choice.skip)
    )


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """`work` of each item in order, at most one more than `workers` of them in memory."""
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


def _palettized(model: Model, task: _Task) -> _Palettized:
    """The table and indices of one tensor."""
    array = to_array(model, task.value)
    try:
        found = histogram(array)
    except MILError as error:
        raise MILError(f"{model.source}: weight {task.name}: {error.message}") from error
    table = palette(found, task.bits, array.dtype)
    packed = pack_bits(indices(table, array), task.bits)
    return _Palettized(table=table, packed=packed, report=_report(task, found, table))


def _report(task: _Task, found: Histogram, table: np.ndarray) -> TensorReport:
    """Measures the palette on the histogram, which holds every element."""
    kind = task.value.type
    error = found.values - table[nearest(table, found.values)].astype(np.float64)
    noise = float(found.counts @ error**2)
    signal = float(found.counts @ found.values**2)
    count = int(found.counts.sum())
    return TensorReport(
        name=task.name,
        bits=task.bits,
        bytes_before=packed_bytes(kind.dtype, count),
        bytes_after=packed_bytes(f"uint{task.bits}", count) + table.nbytes,
        rms_error=(noise / count) ** 0.5,
        max_error=float(np.abs(error).max()),
        snr_db=float(10 * np.log10(signal / noise)) if noise else float("inf"),
    )


class _Tables:
    """Tables and indices, taken from the workers in order and written when first asked for."""

    def __init__(
        self, weights: Weights, results: Iterator[_Palettized], reports: list[TensorReport]
    ) -> None:
        self._weights = weights
        self._results = results
        self._reports = reports
        self._written: dict[tuple[Value, int, bool], dict[str, Value]] = {}

    def values(self, task: _Task) -> dict[str, Value]:
        """The `indices` and `lut` of a tensor."""
        if task.key not in self._written:
            result = next(self._results)
            self._reports.append(result.report)
            self._written[task.key] = self._write(task, result)
        return self._written[task.key]

    def _write(self, task: _Task, result: _Palettized) -> dict[str, Value]:
        kind = task.value.type
        count = len(result.table)
        if task.as_argument:
            code = TensorType(f"uint{task.bits}", kind.shape)
            table = TensorType(kind.dtype, (1,) * len(kind.shape) + (count, 1))
            padding = len(result.packed) * 8 - kind.count * task.bits
        else:
            code = TensorType("uint8", (len(result.packed),))
            table = TensorType(kind.dtype, (count,))
            padding = 0
        packed = self._weights.append(code.dtype, result.packed, padding)
        data: bytes | Blob = result.table.tobytes()
        if count >= INLINE_ELEMENTS:
            data = self._weights.append(kind.dtype, data)
        return {"indices": Value(code, packed), "lut": Value(table, data)}


def _block(
    block: Block, tasks: Mapping[str, _Task], weights: Weights, tables: _Tables
) -> Block:
    """`block` with the constants of `tasks` palettized and all other blobs copied."""
    taken = {out.name for op in walk(block) for out in op.outputs}
    names = {name: fresh(f"{name}_palettized", taken) for name in tasks}

    def change(operation: Operation) -> Operation:
        task = tasks.get(operation.outputs[0].name) if operation.type == "const" else None
        if task is None:
            return renamed(weights.carry(operation), names)
        return _lut_to_dense(names[task.name], task, tables.values(task))

    return rebuilt(block, change)


def _lut_to_dense(name: str, task: _Task, values: Mapping[str, Value]) -> Operation:
    """The operation that makes the tensor of its `indices` and `lut`."""
    kind = task.value.type
    arguments = {key: (value,) for key, value in values.items()} if task.as_argument else {}
    attributes = {"name": string(name)}
    if not task.as_argument:
        shape = np.array(kind.shape, "<u4")
        attributes |= values
        attributes["shape"] = Value(TensorType("uint32", shape.shape), shape.tobytes())
    return Operation(type="constexpr_lut_to_dense", outputs=(NamedType(name, kind),),
                     inputs=arguments, attributes=attributes)
