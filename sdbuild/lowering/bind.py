"""Binds a checkpoint to a lowered program: each tensor streamed into its place.

Nothing here needs torch or coremltools' converter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.base.progress import each
from sdbuild.lowering.lowered import FLOATS, Binding, Lowered
from sdbuild.mil.files.blob import BlobReader, BlobWriter
from sdbuild.mil.files.package import write_package
from sdbuild.mil.ir.decode import decode_program
from sdbuild.mil.ir.program import Function, Operation, Program, TensorType
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import rebuilt, walk
from sdbuild.safetensors.decode import decoded, is_finite, to_array
from sdbuild.safetensors.tensors import Tensor

_UNDERFLOW_CHECKED = 400
_SMALLEST = np.float16(2**-24)
_STORED = {"fp16": "F16", "fp32": "F32"}


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
                size = int(np.prod(binding.shape)) * FLOATS[binding.dtype].itemsize
                offset = writer.stream(binding.dtype, size, _chunks(tensor, binding))
            if offset != binding.offset:
                raise StepError(
                    f"{binding.parameter}: its blob is at {offset}, expected {binding.offset}"
                )


def _chunks(tensor: Tensor, binding: Binding) -> Iterator[bytes]:
    """Yields the tensor's bytes for its place, a part at a time unless it is transposed.

    Finite numbers that are stored in the type of their place are passed on as they are.
    """
    if binding.is_transposed:
        yield _array(tensor, binding).tobytes()
        return
    small = int(np.prod(binding.shape)) < _UNDERFLOW_CHECKED
    is_stored_so = tensor.dtype == _STORED[binding.dtype] and not small
    for chunk in tensor.chunks():
        if is_stored_so and is_finite(tensor.dtype, chunk):
            yield chunk
        else:
            yield _cast(decoded(chunk, tensor), binding.dtype, tensor.name, small).tobytes()


def _array(tensor: Tensor, binding: Binding) -> np.ndarray:
    """Returns the whole tensor for its place."""
    found = to_array(tensor)
    array = _cast(found, binding.dtype, tensor.name, found.size < _UNDERFLOW_CHECKED)
    return np.ascontiguousarray(array.T) if binding.is_transposed else array


def _cast(array: np.ndarray, dtype: str, name: str, is_small: bool) -> np.ndarray:
    """Returns the array in its place's type; as coremltools casts, byte for byte.

    In small tensors, such as an epsilon's or a bias, a number that fp16 would make zero becomes
    the smallest that it has.
    """
    if not np.isfinite(array).all():
        raise StepError(
            f"the tensor {name} holds NaN or infinity",
            hint="the checkpoint is damaged, or was saved from a run that diverged",
        )
    with np.errstate(over="ignore", under="ignore"):
        made = array.astype(np.float32).astype(FLOATS[dtype])
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
    """Returns the program with constants written in place replaced, by the name of their output."""
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
    """Yields the float constants written in place: output, type, shape, elements."""
    for function in program.functions.values():
        for found in walk(function.block):
            value = found.attributes.get("val") if found.type == "const" else None
            if value is None or not isinstance(value.data, bytes):
                continue
            if isinstance(value.type, TensorType) and value.type.dtype in FLOATS:
                shape = tuple(d for d in value.type.shape if isinstance(d, int))
                elements = np.frombuffer(value.data, FLOATS[value.type.dtype])
                yield found.outputs[0].name, value.type.dtype, shape, elements
