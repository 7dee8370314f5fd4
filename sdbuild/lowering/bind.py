"""Binds a checkpoint to a lowered program: each tensor streamed into its place.

A lowered program is a folder: `model.mlmodel`, the program with the places of all blobs;
`bindings.json`, what belongs into each place; `constants.bin`, the blobs that no checkpoint
changes. Nothing here needs torch or coremltools' converter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.base.parsing import Fields, json_file
from sdbuild.base.progress import each
from sdbuild.mil.files.blob import BlobReader, BlobWriter
from sdbuild.mil.files.package import read_spec, write_package
from sdbuild.mil.ir.decode import decode_program
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Function, Operation, Program, TensorType
from sdbuild.mil.ir.proto import Message, serialize
from sdbuild.mil.ir.traverse import rebuilt, walk
from sdbuild.safetensors.decode import decoded, to_array
from sdbuild.safetensors.tensors import Tensor

_UNDERFLOW_CHECKED = 400
_SMALLEST = np.float16(2**-24)
_LONGEST_SIDE = 1 << 32
_NUMPY: dict[str, np.dtype[Any]] = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A place in the program: a blob at `offset`, or a constant written in place (`value`).

    It takes a parameter (transposed, if its first axis moved), or a constant blob of the lowered
    program at the offset `constant` of `constants.bin`.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None
    value: str | None = None
    parameter: str | None = None
    is_transposed: bool = False
    constant: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A lowered program: its message, the shapes of the parameters that it takes, and its
    bindings, the blobs' in order."""

    spec: Message
    parameters: Mapping[str, tuple[int, ...]]
    bindings: tuple[Binding, ...]
    constants: Path


def write_lowered(folder: Path, lowered: Lowered) -> None:
    """Writes a lowered program; its `constants.bin` is there already."""
    (folder / "model.mlmodel").write_bytes(serialize(lowered.spec))
    table = {
        "parameters": {name: list(shape) for name, shape in lowered.parameters.items()},
        "bindings": [asdict(binding) for binding in lowered.bindings],
    }
    (folder / "bindings.json").write_text(json.dumps(table, indent=0), "utf-8")


def read_lowered(folder: Path) -> Lowered:
    """The lowered program in a folder.

    Raises:
        StepError: its table is not what `write_lowered` writes; InvalidProgram if the model is none
            or describes no program.
    """
    parameters, bindings = read_bindings(folder / "bindings.json")
    return Lowered(
        spec=read_spec(folder / "model.mlmodel"), parameters=parameters, bindings=bindings,
        constants=folder / "constants.bin",
    )


def read_bindings(path: Path) -> tuple[dict[str, tuple[int, ...]], tuple[Binding, ...]]:
    """The shapes of a lowered program's parameters, and its bindings.

    Raises:
        StepError: the table is not what `write_lowered` writes.
    """
    table = Fields(json_file(path, StepError), path.name, StepError)
    shapes = table.fields("parameters")
    parameters = {name: _shape(shapes, name) for name in shapes.values}
    bindings = tuple(
        _binding(Fields(entry, f"{path.name}: binding {number}", StepError), parameters)
        for number, entry in enumerate(table.listed("bindings", dict))
    )
    return parameters, bindings


def _shape(fields: Fields, name: str) -> tuple[int, ...]:
    shape = tuple(fields.listed(name, int))
    if any(not 0 <= side <= _LONGEST_SIDE for side in shape):
        raise StepError(f"{fields.where}: {name} is {list(shape)}, expected the shape of a tensor")
    return shape


def _binding(fields: Fields, parameters: Mapping[str, tuple[int, ...]]) -> Binding:
    found = Binding(
        dtype=fields.choice("dtype", tuple(DTYPES)),
        shape=_shape(fields, "shape"),
        offset=fields.integer("offset", default=None),
        value=fields.text("value", default=None),
        parameter=fields.text("parameter", default=None),
        is_transposed=fields.flag("is_transposed", default=False),
        constant=fields.integer("constant", default=None),
    )
    if (found.offset is None) == (found.value is None):
        raise StepError(f"{fields.where}: expected either an offset or a value")
    if found.constant is not None and found.parameter is None and found.offset is not None:
        return found
    taken = parameters.get(found.parameter or "")
    is_fit = taken is not None and prod(taken) == prod(found.shape) and found.dtype in _NUMPY
    if found.constant is not None or not is_fit:
        raise StepError(f"{fields.where}: expected a constant, or a parameter of floats of its "
                        f"shape, {list(found.shape)}")
    return found


def bind(
    lowered: Lowered, tensors: Mapping[str, Tensor], destination: Path, description: Message
) -> None:
    """Writes the package of a lowered program with the tensors of a checkpoint.

    Args:
        tensors: of the checkpoint, by the name of the parameter that each is for.

    Raises:
        SourceError: a tensor is none of floats.
        StepError: a tensor holds NaN, infinity, or a number that its place cannot hold.
    """
    weights = destination.with_suffix(".weights")
    _write_weights(lowered, tensors, weights)
    inline = {
        b.value: _array(tensors[str(b.parameter)], b).tobytes()
        for b in lowered.bindings if b.value is not None
    }
    write_package(
        destination,
        specification_version=lowered.spec.specificationVersion,
        description=description,
        program=with_values(decode_program(lowered.spec.mlProgram), inline),
        weights=weights,
    )


def _write_weights(lowered: Lowered, tensors: Mapping[str, Tensor], path: Path) -> None:
    constants = BlobReader(lowered.constants)
    with BlobWriter(path) as writer:
        for binding in each(lowered.bindings, "tensors"):
            if binding.offset is None:
                continue
            if binding.constant is not None:
                offset = writer.write(binding.dtype, constants.data(binding.constant))
            else:
                tensor = tensors[str(binding.parameter)]
                size = int(np.prod(binding.shape)) * _NUMPY[binding.dtype].itemsize
                offset = writer.stream(binding.dtype, size, _chunks(tensor, binding))
            if offset != binding.offset:
                raise StepError(
                    f"{binding.parameter}: its blob is at {offset}, expected {binding.offset}"
                )


def _chunks(tensor: Tensor, binding: Binding) -> Iterator[bytes]:
    """The tensor's bytes for its place, some megabytes at a time unless it is transposed."""
    if binding.is_transposed:
        yield _array(tensor, binding).tobytes()
        return
    small = int(np.prod(binding.shape)) < _UNDERFLOW_CHECKED
    for chunk in tensor.chunks():
        yield _cast(decoded(chunk, tensor), binding.dtype, tensor.name, small).tobytes()


def _array(tensor: Tensor, binding: Binding) -> np.ndarray:
    """The whole tensor for its place."""
    found = to_array(tensor)
    array = _cast(found, binding.dtype, tensor.name, found.size < _UNDERFLOW_CHECKED)
    return np.ascontiguousarray(array.T) if binding.is_transposed else array


def _cast(array: np.ndarray, dtype: str, name: str, is_small: bool) -> np.ndarray:
    """The array in its place's type; as coremltools casts, byte for byte.

    In small tensors, such as an epsilon's or a bias, a number that fp16 would make zero becomes
    the smallest that it has.
    """
    if not np.isfinite(array).all():
        raise StepError(
            f"the tensor {name} holds NaN or infinity",
            hint="the checkpoint is damaged, or was saved from a run that diverged",
        )
    with np.errstate(over="ignore", under="ignore"):
        made = array.astype(np.float32).astype(_NUMPY[dtype])
    if not np.isfinite(made).all():
        raise StepError(
            f"the tensor {name} reaches {np.abs(array).max():g}, "
            f"more than {dtype} holds ({np.finfo(made.dtype).max:g})"
        )
    if is_small and dtype == "fp16":
        lost = (array != 0) & (np.abs(made) <= _SMALLEST)
        made = np.where(lost, np.copysign(_SMALLEST, array).astype(np.float16), made)
    return made


def with_values(program: Program, values: Mapping[str, bytes]) -> Program:
    """The program with constants written in place replaced, by the name of their output."""
    def change(operation: Operation) -> Operation:
        name = operation.outputs[0].name if operation.outputs else ""
        if operation.type != "const" or name not in values:
            return operation
        value = replace(operation.attributes["val"], data=values[name])
        return replace(operation, attributes={**operation.attributes, "val": value})

    def function(found: Function) -> Function:
        return replace(found, blocks={k: rebuilt(b, change) for k, b in found.blocks.items()})

    return replace(program, functions={k: function(f) for k, f in program.functions.items()})


def inline_constants(program: Program) -> Iterator[tuple[str, str, tuple[int, ...], np.ndarray]]:
    """The float constants written in place: output, type, shape, elements."""
    for function in program.functions.values():
        for found in walk(function.block):
            value = found.attributes.get("val") if found.type == "const" else None
            if value is None or not isinstance(value.data, bytes):
                continue
            if isinstance(value.type, TensorType) and value.type.dtype in _NUMPY:
                shape = tuple(d for d in value.type.shape if isinstance(d, int))
                elements = np.frombuffer(value.data, _NUMPY[value.type.dtype])
                yield found.outputs[0].name, value.type.dtype, shape, elements
