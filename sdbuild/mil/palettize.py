"""Palettize: weights replaced by a lookup table and indices of a few bits, package to package.

The tables are `kmeans.py`'s; how a program is walked and written is `compress.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sdbuild.errors import MILError
from sdbuild.mil.arrays import pack_bits
from sdbuild.mil.compress import (
    ARGUMENT_OPSET,
    Method,
    Packed,
    Part,
    Selection,
    Task,
    TensorReport,
    compress,
    report,
)
from sdbuild.mil.kmeans import histogram, indices, nearest, palette
from sdbuild.mil.program import TensorType

NBITS = (1, 2, 3, 4, 6, 8)


def palettize(
    source: Path, destination: Path, *, nbits: int, min_elements: int = 2048,
    skip: Sequence[str] = (), skip_types: Sequence[str] = (),
    mixed: Mapping[str, int] | None = None, group_size: int | None = None, workers: int = 1,
) -> tuple[TensorReport, ...]:
    """Palettizes the weights of the package `source` into a package at `destination`.

    Taken are the constants that coremltools' `palettize_weights` takes: fp16 and fp32 in the weight
    file, of two or more dimensions and more than `min_elements` elements. Each has its own table,
    or with `group_size` (iOS 18) one for that many output channels; a tensor whose channels
    `group_size` does not divide has one table. The same source and choices give the same bytes,
    whatever `workers` (threads) is.

    Before:
        w = const(val=…) ; y = conv(weight=w, …)
    After, iOS 16 and 17:
        w_palettized = constexpr_lut_to_dense[indices=…, lut=…, shape=…]
        y = conv(weight=w_palettized, …)
    After, iOS 18:
        w_palettized = constexpr_lut_to_dense(indices=…, lut=…)
        y = conv(weight=w_palettized, …)

    Raises:
        MILError: the opset has no palettes of these bits or groups, weights are packed already, a
            pattern fits no constant, a tensor holds NaN or infinity, or `destination` exists.
        InvalidProgram: `source` is not a sound package.
    """
    selection = Selection(nbits=nbits, min_elements=min_elements, skip=skip,
                          skip_types=skip_types, mixed=mixed or {})
    if group_size is not None and group_size < 1:
        raise MILError(f"groups of {group_size} channels, expected one or more")
    method = Method(suffix="_palettized", allows=partial(_allow, group_size),
                    pack=partial(_pack, group_size))
    return compress(source, destination, selection, method, workers)


def _allow(group_size: int | None, bits: int, opset: int) -> None:
    if bits not in NBITS:
        raise MILError(f"palettes of {bits} bits, expected one of {', '.join(map(str, NBITS))}")
    if opset >= ARGUMENT_OPSET:
        return
    found = f"need opset CoreML{ARGUMENT_OPSET}, found CoreML{opset}"
    if bits == 3:
        raise MILError(f"palettes of 3 bits {found}", hint="convert for iOS 18, or use 2 or 4 bits")
    if group_size is not None:
        raise MILError(f"palettes of channel groups {found}", hint="convert for iOS 18")


def _pack(group_size: int | None, task: Task, array: np.ndarray) -> Packed:
    """The tables and indices of one tensor."""
    axis = task.axes.output if task.axes else 0
    groups = 1
    if group_size is not None and task.axes and array.shape[axis] % group_size == 0:
        groups = array.shape[axis] // group_size
    tables, found = [], np.empty(array.shape, np.uint8)
    noise = signal = worst = 0.0
    pieces = zip(np.split(array, groups, axis), np.split(found, groups, axis), strict=True)
    for values, places in pieces:
        values = np.ascontiguousarray(values)
        counted = histogram(values)
        table = palette(counted, task.bits, array.dtype)
        places[...] = indices(table, values).reshape(values.shape)
        error = counted.values - table[nearest(table, counted.values)].astype(np.float64)
        noise += float(counted.counts @ error**2)
        signal += float(counted.counts @ counted.values**2)
        worst = max(worst, float(np.abs(error).max()))
        tables.append(table)
    parts = _parts(task, np.stack(tables), found, axis)
    return Packed(operation="constexpr_lut_to_dense", parts=parts, report=report(
        task, parts, groups=groups, noise=noise, signal=signal, worst=worst))


def _parts(
    task: Task, tables: np.ndarray, found: np.ndarray, axis: int
) -> dict[str, Part]:
    """The tables and indices in the form of the opset.

    Shapes:
        tables: (groups, 2**nbits); found: as the weight.
        returns: iOS 18: indices as the weight, lut (1, …, groups at `axis`, …, 1, 2**nbits, 1);
            before: indices flat bytes, lut (2**nbits,).
    """
    kind = task.value.type
    packed = pack_bits(found, task.bits)
    groups, size = tables.shape
    if task.as_argument:
        lut_shape = [1] * len(kind.shape) + [size, 1]
        lut_shape[axis] = groups
        return {
            "indices": Part(TensorType(f"uint{task.bits}", kind.shape), packed),
            "lut": Part(TensorType(kind.dtype, tuple(lut_shape)), tables.tobytes()),
        }
    shape = np.array(kind.shape, "<u4")
    return {
        "indices": Part(TensorType("uint8", (len(packed),)), packed),
        "lut": Part(TensorType(kind.dtype, (size,)), tables.tobytes()),
        "shape": Part(TensorType("uint32", shape.shape), shape.tobytes()),
    }
