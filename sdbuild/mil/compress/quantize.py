"""Quantize: weights replaced by small integers and scales, package to package.

Symmetric: a weight is an integer times the scale of its channel or block. How a program is walked
and written is `compress.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.activations import check_layers, with_pairs
from sdbuild.mil.compress.compress import ARGUMENT_OPSET, Selection, compress
from sdbuild.mil.compress.packed_weights import (
    Method,
    Packed,
    Part,
    Task,
    TensorReport,
    Unpacking,
    loss,
    part,
    report,
)
from sdbuild.mil.compress.scales import integers_of, scales_of
from sdbuild.mil.files.arrays import pack_bits
from sdbuild.mil.ir.dtype import INTEGER_BITS
from sdbuild.mil.ir.program import Block, Function, TensorType


def quantize(
    source: Path, destination: Path, *, nbits: int = 8, block_size: int | None = None,
    min_elements: int = 2048, skip: Sequence[str] = (), skip_types: Sequence[str] = (),
    activations: Mapping[str, float] | None = None, workers: int = 1,
) -> tuple[TensorReport, ...]:
    """Quantizes the weights of the package `source` into a package at `destination`.

    Taken are the constants that `palettize` takes. Each output channel has a scale, or with
    `block_size` (iOS 18) each run of that many of its input channels; a tensor whose input channels
    `block_size` does not divide has one a channel, and one whose users disagree on what its
    channels are has a single scale.

    Before:
        w = const(val=…) ; y = conv(weight=w, …)
    After, iOS 16 and 17:
        w_quantized = constexpr_affine_dequantize[quantized_data=…, zero_point=0, scale=…, axis=…]
        y = conv(weight=w_quantized, …)
    After, iOS 18:
        w_quantized = constexpr_blockwise_shift_scale(data=…, scale=…)
        y = conv(weight=w_quantized, …)

    The inputs of the layers in `activations` are quantized too, to 8 bits (iOS 17), as
    `activations.py` shows; it maps their names to the greatest magnitude of their input.

    Raises:
        MILError: the opset has no integers of these bits or blocks, or no quantized activations,
            weights are packed already, a pattern fits no constant or a name no layer, a tensor
            holds NaN or infinity, or `destination` exists.
        InvalidProgram: `source` is not a sound package.
    """
    selection = Selection(nbits=nbits, min_elements=min_elements, skip=skip,
                          skip_types=skip_types)
    if block_size is not None and block_size < 1:
        raise MILError(f"blocks of {block_size} channels, expected one or more")
    method = Method(suffixes=("_quantized",), allows=partial(_allow, block_size),
                    pack=partial(_pack, block_size))
    if not activations:
        return compress(source, destination, selection, method, workers)
    return compress(source, destination, selection, method, workers,
                    change=partial(_quantize_inputs, source, activations))


def _quantize_inputs(
    source: Path, activations: Mapping[str, float], function: Function, block: Block
) -> Block:
    check_layers(source, function, activations)
    return with_pairs(function, block, activations)


def _allow(block_size: int | None, bits: int, opset: int) -> None:
    if bits not in INTEGER_BITS:
        allowed = ", ".join(map(str, INTEGER_BITS))
        raise MILError(f"integers of {bits} bits, expected one of {allowed}")
    if opset < ARGUMENT_OPSET and (bits != 8 or block_size is not None):
        what = f"integers of {bits} bits" if bits != 8 else "blocks of channels"
        raise MILError(f"{what} need opset CoreML{ARGUMENT_OPSET}, found CoreML{opset}",
                       hint="convert for iOS 18, or use 8 bits per channel")


def _pack(block_size: int | None, task: Task, array: np.ndarray) -> Packed:
    """Returns the integers and scales of one tensor."""
    can_part = _can_part(block_size, task, array.shape)
    scales_shape = _scales_shape(block_size if can_part else None, task, array.shape)
    blocked = array.reshape(_blocked(array.shape, scales_shape))
    inner = tuple(range(1, blocked.ndim, 2))
    top = (1 << (task.bits - 1)) - 1
    scales = scales_of(blocked, inner, top)
    integers = integers_of(blocked, scales, top)
    lost = loss(blocked, (integers * scales.astype(np.float32)).astype(array.dtype))
    parts = _parts(task, integers.astype(np.int8).reshape(array.shape),
                   scales.reshape(scales_shape))
    operations = (Unpacking(operation=_operation(task), parts=parts, result=task.type),)
    return Packed(operations=operations,
                  report=report(task, operations, lost, groups=scales.size,
                                is_whole=block_size is not None and not can_part))


def _can_part(block_size: int | None, task: Task, shape: tuple[int, ...]) -> bool:
    return (block_size is not None and task.axes is not None
            and shape[task.axes.input] % block_size == 0)


def _scales_shape(
    block_size: int | None, task: Task, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the number of scales along each axis, with blocks that divide the input channels."""
    counts = [1] * len(shape)
    if task.axes is not None:
        counts[task.axes.output] = shape[task.axes.output]
        if block_size is not None:
            counts[task.axes.input] = shape[task.axes.input] // block_size
    return tuple(counts)


def _blocked(shape: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    """Returns `shape` with each axis as two: the scales along it, and the elements of each."""
    return tuple(size for dim, count in zip(shape, counts, strict=True)
                 for size in (count, dim // count))


def _operation(task: Task) -> str:
    return "constexpr_blockwise_shift_scale" if task.as_argument else "constexpr_affine_dequantize"


def _parts(task: Task, integers: np.ndarray, scales: np.ndarray) -> dict[str, Part]:
    """Integers and scales in the form of the opset.

    Shapes:
        integers: as the weight; scales: as many axes.
        returns: iOS 18: both as they are; before: zero_point and scale (channels,).
    """
    kind = task.type
    data = Part(TensorType(f"int{task.bits}", kind.shape), pack_bits(integers, task.bits))
    if task.as_argument:
        return {"data": data, "scale": part(kind.dtype, scales)}
    shape = (scales.size,) if scales.size > 1 else ()
    return {
        "quantized_data": data,
        "zero_point": part("int8", np.zeros(shape, np.int8)),
        "scale": part(kind.dtype, scales.reshape(shape)),
        "axis": part("int32", np.array(task.axes.output if task.axes else 0, "<i4")),
    }
