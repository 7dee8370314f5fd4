"""Quantized activations: the inputs of layers rounded to 8-bit integers, by a pair of operations.

A pair of `quantize` and `dequantize` before a layer says that its input has integer values; devices
that multiply integers then compute the layer with them. Ranges come from
`execute/layer_inputs.py`, the program is walked and written by `compress.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.base.parsing import Fields, json_file
from sdbuild.base.suggestions import did_you_mean
from sdbuild.mil.compress.scales import scales_of
from sdbuild.mil.ir.program import (
    Block,
    Function,
    NamedType,
    Operation,
    TensorType,
    Value,
    as_tensor,
    string,
)
from sdbuild.mil.ir.traverse import fresh, is_constant, walk

OPSET = 7
"""CoreML7, iOS 17: the first with `quantize` and `dequantize`."""

LAYERS = ("conv", "linear")
"""The types of operations that multiply an input, their argument `x`, by weights."""

TOP = 127
"""The greatest integer of 8 bits; the least is its negative, so that zero is in the middle.
Source: coremltools 9.0, `get_quant_range` for `LINEAR_SYMMETRIC` (BSD-3-Clause)."""

_NUMPY: Mapping[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An operation that multiplies an input by weights. `value` is what it is given, of type
    `dtype`, as what it gives; `work` are its multiplications."""

    name: str
    value: str
    dtype: str
    work: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInput:
    """The input of a layer, as it was observed.

    Attributes:
        layer: the name of the operation.
        value: the name of what it is given.
        largest: the greatest magnitude of that.
        work: its multiplications.
        snr_db: the mean square of what the program gives over that of its error, if the layer's
            input alone is rounded; infinite if nothing is lost.
    """

    layer: str
    value: str
    largest: float
    work: int
    snr_db: float

    @property
    def noise(self) -> float:
        """The error of what the program gives, as a share of its mean square."""
        return float(10 ** (-self.snr_db / 10))


def write_layer_inputs(path: Path, found: Sequence[LayerInput]) -> None:
    """Writes what was observed, as JSON; an infinite ratio is null."""
    layers = [{**asdict(item), "snr_db": item.snr_db if np.isfinite(item.snr_db) else None}
              for item in found]
    path.write_text(json.dumps({"schema": _SCHEMA, "layers": layers}, indent=1), "utf-8")


def read_layer_inputs(path: Path) -> list[LayerInput]:
    """Returns what `write_layer_inputs` wrote.

    Raises:
        MILError: it is not such a file.
    """
    fields = Fields(json_file(path, MILError), str(path), MILError)
    fields.integer("schema", low=_SCHEMA, high=_SCHEMA)
    return [_layer_input(Fields(entry, f"{path}: layers", MILError))
            for entry in fields.listed("layers", dict)]


def _layer_input(entry: Fields) -> LayerInput:
    ratio = np.inf if entry.values.get("snr_db") is None else entry.number("snr_db")
    return LayerInput(layer=entry.text("layer"), value=entry.text("value"), snr_db=ratio,
                      largest=entry.number("largest", low=0), work=entry.integer("work"))


def chosen(found: Sequence[LayerInput], least_snr_db: float) -> list[LayerInput]:
    """Returns the layers whose inputs are rounded, so that the program gives what it gave with a
    signal-to-noise ratio of `least_snr_db`, in the order of the program.

    Errors of layers add up, as they are of different signs. So layers are left out until the rest
    is within the ratio, those first that cost most for the multiplications that they save.
    """
    left: set[str] = set()
    total, most = sum(item.noise for item in found), 10 ** (-least_snr_db / 10)
    for item in sorted(found, key=lambda item: (-item.noise / max(item.work, 1), item.layer)):
        if total <= most:
            break
        left.add(item.layer)
        total -= item.noise
    return [item for item in found if item.layer not in left]


def layers(function: Function) -> dict[str, Layer]:
    """Returns the layers of a function whose weights are constant and whose input is not, by name;
    none of blocks within it."""
    operations = function.block.operations
    constants = {out.name: out.type for operation in operations if is_constant(operation)
                 for out in operation.outputs}
    found = {}
    for operation in operations:
        if operation.type in LAYERS:
            (given, *_), (weight, *_) = operation.inputs["x"], operation.inputs["weight"]
            kind = constants.get(weight) if isinstance(weight, str) else weight.type
            if kind is not None and isinstance(given, str) and given not in constants:
                made, weights = as_tensor(operation.outputs[0].type), as_tensor(kind)
                found[operation.name] = Layer(
                    name=operation.name, value=given, dtype=made.dtype,
                    work=made.elements * (weights.elements // weights.dims[0]))
    return found


def scale_of(largest: float, dtype: str) -> np.ndarray:
    """Returns the step between the integers of values up to `largest`, in their own type; 1 if all
    are zero.

    Shapes:
        returns: ()
    """
    return scales_of(np.array([largest], _NUMPY[dtype]), (0,), TOP).reshape(())


def check_layers(source: Path, function: Function, given: Mapping[str, float]) -> None:
    """Makes sure that a program has quantized activations, and these layers.

    Raises:
        MILError: it is for a system before iOS 17, or has no such layer.
    """
    number = function.opset.removeprefix("CoreML")
    if not number.isdecimal() or int(number) < OPSET:
        raise MILError(f"{source}: quantized activations need opset CoreML{OPSET}, found "
                       f"{function.opset}", hint="convert for iOS 17 or later")
    known = layers(function)
    for name in given:
        if name not in known:
            raise MILError(f"{source}: no layer with constant weights is called {name!r}"
                           f"{did_you_mean(name, known)}",
                           hint="the ranges are of another program: observe this one")


def with_pairs(function: Function, block: Block, given: Mapping[str, float]) -> Block:
    """Returns a block of a function, with the inputs of some layers rounded to integers.

    Layers that take the same value share a pair; others take the value as it was.

    Before:
        y = conv(x=x, weight=w)
    After:
        x_quantized = quantize(input=x, scale=…, output_dtype="int8")
        x_dequantized = dequantize(input=x_quantized, scale=…)
        y = conv(x=x_dequantized, weight=w)

    Args:
        given: the greatest magnitude of the input, by the layer's name.
    Source:
        coremltools 9.0, `insert_prefix_quantize_dequantize_pair` in
        `coremltools/optimize/coreml/_quantization_passes.py` (BSD-3-Clause).
    """
    types = {item.name: item.type for item in function.inputs}
    types |= {out.name: out.type for operation in block.operations for out in operation.outputs}
    taken = {*types, *(out.name for operation in walk(block) for out in operation.outputs)}
    largest: dict[str, float] = {}
    rounds = {name: layer.value for name, layer in layers(function).items() if name in given}
    for name, value in rounds.items():
        largest[value] = max(largest.get(value, 0.0), given[name])
    rounded: dict[str, str] = {}
    made: list[Operation] = []
    for operation in block.operations:
        value = rounds.get(operation.name, "") if operation.type in LAYERS else ""
        if value and value not in rounded:
            pair = _pair(value, types[value], largest[value], taken)
            rounded[value] = pair[-1].outputs[0].name
            made += pair
        made.append(replace(operation, inputs={**operation.inputs, "x": (rounded[value],)})
                    if value else operation)
    return replace(block, operations=tuple(made))


def _pair(value: str, kind: Any, largest: float, taken: set[str]) -> list[Operation]:
    """Returns the operations that round a value: constants, `quantize`, `dequantize`."""
    assert isinstance(kind, TensorType)
    integers, floats = fresh(f"{value}_quantized", taken), fresh(f"{value}_dequantized", taken)
    scale = scale_of(largest, kind.dtype)
    scale_value = Value(TensorType(kind.dtype), scale.tobytes())
    scales = [fresh(f"{name}_scale_0", taken) for name in (integers, floats)]
    output = fresh(f"{integers}_output_dtype_0", taken)
    return [
        _const(scales[0], scale_value), _const(output, string("int8")),
        Operation(type="quantize",
                  inputs={"input": (value,), "output_dtype": (output,), "scale": (scales[0],)},
                  outputs=(NamedType(integers, TensorType("int8", kind.shape)),),
                  attributes={"name": string(integers)}),
        _const(scales[1], scale_value),
        Operation(type="dequantize", inputs={"input": (integers,), "scale": (scales[1],)},
                  outputs=(NamedType(floats, TensorType(kind.dtype, kind.shape)),),
                  attributes={"name": string(floats)}),
    ]


def _const(name: str, value: Value) -> Operation:
    return Operation(type="const", outputs=(NamedType(name, value.type),),
                     attributes={"name": string(name), "val": value})
