"""Binds a checkpoint to a lowered program: each tensor streamed into its place.

Nothing here needs torch or coremltools' converter.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from sdbuild.base.digest import Digest
from sdbuild.base.errors import InvalidProgram, StepError
from sdbuild.base.progress import each
from sdbuild.lowering.lowered import FLOATS, Binding, Lowered
from sdbuild.mil.files.blob import (
    BlobDigest,
    BlobReader,
    BlobRecord,
    BlobStream,
    BlobWriter,
    written_record,
)
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
    lowered: Lowered, tensors: Mapping[str, Tensor], destination: Path, description: Message, *,
    is_without_weights: bool = False,
) -> None:
    """Writes the package of a lowered program with the tensors of a checkpoint.

    Args:
        tensors: of the checkpoint, by the name of the parameter that each is for.
        is_without_weights: the weight file is not written; `BoundBlobs` has its content.

    Raises:
        SourceError: a tensor is none of floats.
        StepError: a tensor holds NaN, infinity, or a number that its place cannot hold.
    """
    weights = None
    if not is_without_weights:
        weights = destination.with_suffix(".weights")
        with BlobWriter(weights) as writer:
            BoundBlobs(lowered, tensors).give(writer)
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
        is_without_weights=is_without_weights,
    )


class BoundBlobs:
    """The weight file that `bind` writes, as blobs that are computed when they are read.

    Raises:
        SourceError, StepError: as `bind`, when a blob is asked for.
    """

    def __init__(self, lowered: Lowered, tensors: Mapping[str, Tensor]) -> None:
        self._constants = BlobReader(lowered.constants)
        self._tensors = tensors
        self._maps: dict[Path, mmap.mmap] = {}
        self._bindings = {b.offset: b for b in lowered.bindings if b.offset is not None}

    @property
    def size_bytes(self) -> int:
        """The size of all blobs in bytes."""
        return sum(record.size_bytes for record in self.records())

    def record(self, offset: int) -> BlobRecord:
        """Returns the record at `offset`, as the file has it.

        Raises:
            InvalidProgram: there is none.
        """
        binding = self._binding(offset)
        constant = binding.constant
        count = (prod(binding.shape) if constant is None
                 else self._constants.record(constant).count)
        return written_record(offset, binding.dtype, count)

    def records(self) -> Iterator[BlobRecord]:
        """Yields every record, in order."""
        return map(self.record, self._bindings)

    def data(self, offset: int) -> memoryview:
        """Returns the bytes of the blob at `offset`, mapped from the checkpoint if they are equal
        there. Mapped bytes are not checked for NaN and infinity, as `digest` and `give` do."""
        binding = self._binding(offset)
        tensor = self._tensors.get(str(binding.parameter))
        if type(tensor) is Tensor and not binding.is_transposed and _is_stored_so(tensor, binding):
            return self._mapped(tensor)
        return memoryview(b"".join(self._parts(binding)))

    def digest(self) -> tuple[Digest, int]:
        """Returns the digest and the size in bytes of the file, without writing it."""
        found = BlobDigest(len(self._bindings))
        self.give(found)
        return found.digest(), found.size_bytes

    def give(self, stream: BlobStream) -> None:
        """Writes every blob to a stream, in order."""
        for binding in each(self._bindings.values(), "tensors"):
            size = self.record(int(binding.offset or 0)).size_bytes
            offset = stream.stream(binding.dtype, size, self._parts(binding))
            if offset != binding.offset:
                raise StepError(
                    f"{binding.parameter}: its blob is at {offset}, expected {binding.offset}"
                )

    def _mapped(self, tensor: Tensor) -> memoryview:
        if tensor.file not in self._maps:
            with tensor.file.open("rb") as file:
                self._maps[tensor.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._maps[tensor.file])[tensor.start:tensor.start + tensor.size_bytes]

    def _binding(self, offset: int) -> Binding:
        try:
            return self._bindings[offset]
        except KeyError:
            raise InvalidProgram(f"no blob is at offset {offset}") from None

    def _parts(self, binding: Binding) -> Iterable[bytes | memoryview]:
        if binding.constant is not None:
            return [self._constants.data(binding.constant)]
        return _chunks(self._tensors[str(binding.parameter)], binding)


def _chunks(tensor: Tensor, binding: Binding) -> Iterator[bytes]:
    """Yields the tensor's bytes for its place, a part at a time unless it is transposed.

    Finite numbers that are stored in the type of their place are passed on as they are.
    """
    if binding.is_transposed:
        yield _array(tensor, binding).tobytes()
        return
    is_stored_so = _is_stored_so(tensor, binding)
    for chunk in tensor.chunks():
        if is_stored_so and is_finite(tensor.dtype, chunk):
            yield chunk
        else:
            yield _cast(decoded(chunk, tensor), binding.dtype, tensor.name,
                        _is_small(binding)).tobytes()


def _is_stored_so(tensor: Tensor, binding: Binding) -> bool:
    """Whether the bytes of a finite tensor are those of its blob, without a cast."""
    return tensor.dtype == _STORED[binding.dtype] and not _is_small(binding)


def _is_small(binding: Binding) -> bool:
    return prod(binding.shape) < _UNDERFLOW_CHECKED


def _array(tensor: Tensor, binding: Binding) -> np.ndarray:
    """Returns the whole tensor for its place."""
    found = to_array(tensor)
    array = _cast(found, binding.dtype, tensor.name, _is_small(binding))
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
