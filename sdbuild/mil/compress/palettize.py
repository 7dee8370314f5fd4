"""Palettize: weights replaced by a lookup table and indices of a few bits, package to package.

The tables are `kmeans.py`'s; how a program is walked and written is `compress.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.compress import ARGUMENT_OPSET, Selection, compress
from sdbuild.mil.compress.kmeans import (
    Histogram,
    histogram,
    indices,
    nearest,
    packed,
    packed_indices,
    palette,
)
from sdbuild.mil.compress.packed_weights import (
    Loss,
    Method,
    Packed,
    Part,
    Task,
    TensorReport,
    Unpacking,
    loss,
    magnitudes,
    part,
    report,
    shape_part,
)
from sdbuild.mil.files.blob import Blobs
from sdbuild.mil.ir.dtype import PALETTE_BITS
from sdbuild.mil.ir.program import TensorType

_LEAST_WEIGHT = np.float32(1e-30)  # of an element in the sums of k-means: none may vanish
_VALUES_OF_MASK = 2  # such as a causal mask, a constant of the program


def palettize(
    source: Path, destination: Path, *, nbits: int, min_elements: int = 2048,
    skip: Sequence[str] = (), skip_types: Sequence[str] = (),
    mixed: Mapping[str, int] | None = None, group_size: int | None = None,
    is_scaled: bool = False, workers: int = 1, weights: Blobs | None = None,
) -> tuple[TensorReport, ...]:
    """Palettizes the weights of the package `source` into a package at `destination`.

    Taken are the constants that coremltools' `palettize_weights` takes: fp16 and fp32 in the weight
    file, of two or more dimensions and more than `min_elements` elements. Each has its own table,
    or with `group_size` (iOS 18) one for that many output channels; a tensor whose channels
    `group_size` does not divide has one table. With `is_scaled` (iOS 18) each output channel is
    divided by its greatest magnitude first. The same source and choices give the same bytes,
    whatever `workers` (threads) is. `weights` are those of `compress`.

    Before:
        w = const(val=…) ; y = conv(weight=w, …)
    After, iOS 16 and 17:
        w_palettized = constexpr_lut_to_dense[indices=…, lut=…, shape=…]
        y = conv(weight=w_palettized, …)
    After, iOS 18:
        w_palettized = constexpr_lut_to_dense(indices=…, lut=…)
        y = conv(weight=w_palettized, …)
    After, iOS 18, scaled; each channel has its copy of a table:
        w_palettized = constexpr_blockwise_shift_scale(data=…, scale=…)
        w_palettized_pcs = constexpr_lut_to_dense(indices=…, lut=w_palettized)
        y = conv(weight=w_palettized_pcs, …)

    Raises:
        MILError: the opset has no palettes of these bits, groups or scales, weights are packed
            already, a pattern fits no constant, a tensor holds NaN or infinity, or `destination`
            exists.
        InvalidProgram: `source` is not a sound package.
    Source:
        coremltools 9.0, `palettize_weights` with `enable_per_channel_scale` and the order of
        operations of its pass `canonicalize_quantized_lut_pattern` (BSD-3-Clause); its scales are
        along the output channels, though its documentation says one for each of them, as here.
    """
    selection = Selection(nbits=nbits, min_elements=min_elements, skip=skip,
                          skip_types=skip_types, mixed=mixed or {})
    if group_size is not None and group_size < 1:
        raise MILError(f"groups of {group_size} channels, expected one or more")
    suffixes = ("_palettized", "_palettized_pcs") if is_scaled else ("_palettized",)
    method = Method(suffixes=suffixes, allows=partial(_allow, group_size, is_scaled),
                    pack=partial(_pack, group_size, is_scaled))
    return compress(source, destination, selection, method, workers, weights)


def _allow(group_size: int | None, is_scaled: bool, bits: int, opset: int) -> None:
    if bits not in PALETTE_BITS:
        allowed = ", ".join(map(str, PALETTE_BITS))
        raise MILError(f"palettes of {bits} bits, expected one of {allowed}")
    if opset >= ARGUMENT_OPSET:
        return
    found = f"need opset CoreML{ARGUMENT_OPSET}, found CoreML{opset}"
    if bits == 3:
        raise MILError(f"palettes of 3 bits {found}", hint="convert for iOS 18, or use 2 or 4 bits")
    if group_size is not None:
        raise MILError(f"palettes of channel groups {found}", hint="convert for iOS 18")
    if is_scaled:
        raise MILError(f"palettes with scales {found}", hint="convert for iOS 18")


def _pack(group_size: int | None, is_scaled: bool, task: Task, array: np.ndarray) -> Packed:
    """Returns the tables and indices of one tensor, and the scales of its channels."""
    axis = task.axes.output if task.axes else 0
    can_part = group_size is not None and task.axes and array.shape[axis] % group_size == 0
    groups = array.shape[axis] // group_size if can_part else 1
    others = tuple(i for i in range(array.ndim) if i != axis)
    if not is_scaled and groups == 1:
        counted = histogram(array)
        task, tables = _fitted(task, palette(counted, task.bits, array.dtype)[np.newaxis])
        places, lost = packed_indices(tables[0], array, task.bits), _loss(counted, tables[0])
        operations = unscaled(task, tables, places, axis)
    elif not is_scaled:
        tables, found, lost = _palettes(array, None, task.bits, groups, axis)
        task, tables = _fitted(task, tables)
        operations = unscaled(task, tables, packed(found, task.bits), axis)
    else:
        scales = magnitudes(array, others)
        tables, found, _ = _palettes(array, scales, task.bits, groups, axis)
        task, tables = _fitted(task, tables)
        tables = tables.repeat(array.shape[axis] // groups, 0)
        lost = loss(array, _dense(tables, found, scales, axis))
        operations = _scaled(task, tables, found, scales, axis)
    is_whole = group_size is not None and not can_part
    return Packed(operations=operations,
                  report=report(task, operations, lost, groups=groups, is_whole=is_whole))


def _fitted(task: Task, tables: np.ndarray) -> tuple[Task, np.ndarray]:
    """Returns the tables with as few bits as hold all their entries, and the task with these bits.

    A weight with few values has them as its table, and its last entry fills the rest: one that was
    palettized in training keeps the bits that it had there. Two values are rather those of a mask,
    which gets the bits of all others.

    Shapes:
        tables, returns: (groups, 2**bits)
    """
    entries = max(int((table < table[-1]).sum()) + 1 for table in tables)
    if entries <= _VALUES_OF_MASK:
        return task, tables
    bits = next(bits for bits in PALETTE_BITS if 1 << bits >= entries
                and (bits != 3 or task.as_argument))
    return replace(task, bits=bits), tables[:, :1 << bits]


def _palettes(
    array: np.ndarray, scales: np.ndarray | None, bits: int, groups: int, axis: int
) -> tuple[np.ndarray, np.ndarray, Loss]:
    """Returns a table for each group, the indices into them, and the loss before scaling back.

    With scales, an error counts as much as it will after multiplication: by the scale's square.

    Shapes:
        returns: (groups, 2**bits), as `array`
    """
    tables, lost = [], Loss()
    found = np.empty(array.shape, np.uint8)
    normal, weights = (array, None) if scales is None else _normal(array, scales)
    for within, places in zip(_channels(array.shape, axis, groups), np.split(found, groups, axis),
                              strict=True):
        values = np.ascontiguousarray(normal[within])
        counted = histogram(values, None if weights is None else weights[within])
        table = palette(counted, bits, array.dtype)
        places[...] = indices(table, values).reshape(values.shape)
        lost += _loss(counted, table)
        tables.append(table)
    return np.stack(tables), found, lost


def _normal(array: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `array` in units of its scales, and how much each element counts.

    A channel of zeros has the scale 0, which makes it zeros again whatever its entry is.

    Shapes:
        scales: broadcast to `array`; returns: as `array`
    """
    positive = np.where(scales > 0, scales, np.min(scales, initial=1, where=scales > 0))
    share = positive.astype(np.float32) / positive.max()
    return array / positive, np.broadcast_to(np.maximum(share**2, _LEAST_WEIGHT), array.shape)


def _channels(shape: tuple[int, ...], axis: int, groups: int) -> list[tuple[slice, ...]]:
    """Returns the slice of each group of channels."""
    size, before = shape[axis] // groups, (slice(None),) * axis
    return [(*before, slice(at, at + size)) for at in range(0, shape[axis], size)]


def _loss(counted: Histogram, table: np.ndarray) -> Loss:
    error = counted.values - table[nearest(table, counted.values)].astype(np.float64)
    # sums, not dot products: BLAS adds in an order that depends on its number of threads, and
    # these threads spin while they wait for the next product
    return Loss(noise=float((counted.counts * error**2).sum()),
                signal=float((counted.counts * counted.values**2).sum()),
                worst=float(np.abs(error).max()))


def _dense(
    tables: np.ndarray, found: np.ndarray, scales: np.ndarray, axis: int
) -> np.ndarray:
    """Returns the weight as it is unpacked.

    Shapes:
        tables: (channels, 2**nbits); found: as the weight; scales: one for each channel
        returns: as the weight
    """
    scaled = tables * scales.reshape(-1, 1)
    places = found.swapaxes(0, axis).reshape(len(tables), -1)
    dense = np.take_along_axis(scaled, places.astype(np.intp), 1)
    return dense.reshape(found.swapaxes(0, axis).shape).swapaxes(0, axis)


def unscaled(
    task: Task, tables: np.ndarray, packed: bytes | memoryview, axis: int
) -> tuple[Unpacking, ...]:
    """Tables and packed indices in the form of the opset.

    Shapes:
        tables: (groups, 2**nbits)
        result: iOS 18: indices as the weight, lut: see `_lut`;
            before: indices flat bytes, lut (2**nbits,).
    """
    kind = task.type
    if task.as_argument:
        parts = {"indices": Part(TensorType(f"uint{task.bits}", kind.shape), packed),
                 "lut": _lut(task, tables, axis)}
    else:
        parts = {"indices": Part(TensorType("uint8", (len(packed),)), packed),
                 "lut": part(kind.dtype, tables.reshape(-1)),
                 "shape": shape_part(kind.dims)}
    return (Unpacking(operation="constexpr_lut_to_dense", parts=parts, result=kind),)


def _scaled(
    task: Task, tables: np.ndarray, found: np.ndarray, scales: np.ndarray, axis: int
) -> tuple[Unpacking, ...]:
    """Tables, one for each channel, that are multiplied by their scales, and indices.

    Shapes:
        tables: (channels, 2**nbits); found: as the weight; scales: one for each channel.
    """
    kind, lut = task.type, _lut(task, tables, axis)
    scale = part(kind.dtype, scales[..., np.newaxis, np.newaxis])
    places = Part(TensorType(f"uint{task.bits}", kind.shape), packed(found, task.bits))
    return (
        Unpacking(operation="constexpr_blockwise_shift_scale",
                  parts={"data": lut, "scale": scale}, result=lut.type),
        Unpacking(operation="constexpr_lut_to_dense",
                  parts={"indices": places, "lut": None}, result=kind),
    )


def _lut(task: Task, tables: np.ndarray, axis: int) -> Part:
    """Tables as iOS 18 has them: (1, …, groups at `axis`, …, 1, 2**nbits, 1)."""
    shape = [1] * len(task.type.shape) + [tables.shape[1], 1]
    shape[axis] = len(tables)
    return part(task.type.dtype, tables.reshape(shape))
