"""Operations that are ready to run: bound to their functions, constants and the names of values.

`planner.py` makes them from a program, `execute.py` runs them, `fusion.py` runs some of them in
slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.execute.kinds import FRESH
from sdbuild.mil.execute.ops._types import Body, Parameter
from sdbuild.mil.execute.ops._values import CARRIERS, rounded
from sdbuild.mil.ir.program import Operation, TensorType

LARGEST_ELEMENTS = 1 << 31
"""Of one value; more is taken for a broken shape, and refused before it is allocated."""

Argument = object
"""An argument of an operation: a tensor, a plain Python value, a list of them, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One operation that has run, with all that went in and came out.

    Tensors are those of the run: look, do not write. fp16 is carried by fp32.

    Units:
        seconds: of wall time, checks and rounding included.
    """

    operation: Operation
    inputs: Mapping[str, Argument]
    outputs: Mapping[str, Tensor]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyConstant:
    """A constant that is decoded anew for each use, to save memory."""

    decode: Callable[[], Tensor]


Source: TypeAlias = str | LazyConstant | Tensor
"""The source of an operand: the name of a value, a constant to decode, or one in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """An argument that is not known before the run."""

    sources: tuple[Source, ...]
    parameter: Parameter

    def get(self, values: Mapping[str, Tensor]) -> Argument:
        """Returns the argument, as its parameter wants it."""
        if self.parameter.domain is None:
            return plain(fetched(self.sources[0], values).numpy(), self.parameter)
        if self.parameter.is_list:
            return [fetched(source, values) for source in self.sources]
        return fetched(self.sources[0], values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output as the program declares it."""

    name: str
    type: TensorType
    is_rounded: bool
    is_moved: bool

    def check(self, value: Tensor, operation: Operation) -> None:
        """Refuses a value that is not as declared.

        Raises:
            InvalidProgram: its data type or its shape is another one, or it is absurdly large.
        """
        if value.numel() > LARGEST_ELEMENTS:
            raise InvalidProgram(
                f"{where(operation)}: output {self.name}: found {tuple(value.shape)}, expected at "
                f"most {LARGEST_ELEMENTS} elements", operation=operation.name, output=self.name,
            )
        if value.dtype is not CARRIERS[self.type.dtype] or not fits(value.shape, self.type):
            raise InvalidProgram(
                f"{where(operation)}: output {self.name}: found {value.dtype} "
                f"{tuple(value.shape)}, expected {self.type.dtype} {self.type.shape}",
                operation=operation.name, output=self.name,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """An operation, ready to run; `frees` are the values that it is the last to use."""

    operation: Operation
    function: Callable
    constants: Mapping[str, Argument]
    operands: Mapping[str, Operand]
    bodies: tuple[ExecutableBlock, ...]
    outputs: tuple[Output, ...]
    frees: tuple[str, ...] = ()

    def run(self, values: dict[str, Tensor]) -> Observation:
        """Adds the outputs to `values` and takes out what is not needed any more.

        Raises:
            InvalidProgram: the operation fails, or a result is not as declared.
        """
        start = time.perf_counter()
        inputs = self.arguments(values)
        outputs = self._take(values, inputs)
        return Observation(operation=self.operation, inputs=inputs, outputs=outputs,
                           seconds=time.perf_counter() - start)

    def apply(self, values: dict[str, Tensor]) -> None:
        """Does what `run` does, for nobody to see."""
        self._take(values, self.arguments(values))

    def apply_with(self, values: dict[str, Tensor], given: Mapping[str, Argument]) -> None:
        """Does what `apply` does, with some arguments in the place of its own."""
        self._take(values, {**self.arguments(values), **given})

    def _take(
        self, values: dict[str, Tensor], inputs: Mapping[str, Argument]
    ) -> dict[str, Tensor]:
        outputs = self._call(inputs)
        values.update(outputs)
        for name in self.frees:
            del values[name]
        return outputs

    def needs(self) -> Iterator[str]:
        """Yields the values that it takes, those that its blocks take from around them included."""
        for operand in self.operands.values():
            yield from (source for source in operand.sources if isinstance(source, str))
        for body in self.bodies:
            yield from body.outputs
            for inner in body.steps:
                yield from inner.needs()

    def arguments(self, values: Mapping[str, Tensor]) -> dict[str, Argument]:
        """Returns what the function is called with."""
        operands = {name: operand.get(values) for name, operand in self.operands.items()}
        bodies = {"bodies": [body.body(values) for body in self.bodies]} if self.bodies else {}
        return {**operands, **bodies, **self.constants}

    def _call(self, inputs: Mapping[str, Argument]) -> dict[str, Tensor]:
        try:
            found = self.function(**inputs)
        except (RuntimeError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise InvalidProgram(f"{where(self.operation)}: {error}") from error
        results = (found,) if isinstance(found, Tensor) else tuple(found)
        if len(results) != len(self.outputs):
            raise InvalidProgram(f"{where(self.operation)}: found {len(results)} outputs, "
                                 f"expected {len(self.outputs)}")
        return {output.name: self._finish(output, value, inputs)
                for output, value in zip(self.outputs, results, strict=True)}

    def _finish(self, output: Output, value: Tensor, inputs: Mapping[str, Argument]) -> Tensor:
        """Returns the value of an output, checked and rounded.

        Computed ones are contiguous, whatever the arguments were: the kernels of the operations
        that follow go by it, and differ in the last bit.
        """
        output.check(value, self.operation)
        if output.is_moved:
            return value
        value = value.contiguous()
        if not output.is_rounded:
            return value
        is_owned = self.operation.type in FRESH or _address(value) not in {
            _address(tensor) for tensor in tensors(inputs)}
        return rounded(value, output.type.dtype, is_owned=is_owned)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutableBlock:
    """The steps of a block; `constants` are those that leave it."""

    steps: tuple[Instruction, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]

    def run(self, values: dict[str, Tensor]) -> Iterator[Observation]:
        """Runs each step on `values`, which is changed."""
        values.update(self.constants)
        for step in self.steps:
            yield step.run(values)

    def apply(self, values: dict[str, Tensor]) -> None:
        """Does what `run` does, for nobody to see."""
        values.update(self.constants)
        for step in self.steps:
            step.apply(values)

    def body(self, outer: Mapping[str, Tensor]) -> Body:
        """Returns the block as a function that sees the values around it."""

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            values = {**outer, **dict(zip(self.inputs, inputs, strict=True))}
            self.apply(values)
            return tuple(values[name] for name in self.outputs)

        return call


def fetched(source: Source, values: Mapping[str, Tensor]) -> Tensor:
    """Returns the tensor that an operand comes from."""
    if isinstance(source, str):
        return values[source]
    return source.decode() if isinstance(source, LazyConstant) else source


def plain(array: np.ndarray, parameter: Parameter) -> Argument:
    """Returns an array as a Python value: a list, or the only element.

    Shapes:
        array: a scalar, or (elements,).
    """
    return array.tolist() if parameter.is_list else array.item()


def fits(shape: tuple[int, ...], kind: TensorType) -> bool:
    """Whether a tensor of `shape` is of the type."""
    if shape == kind.shape or ... in kind.shape:
        return True
    return len(shape) == len(kind.shape) and all(
        expected in (None, found) for found, expected in zip(shape, kind.shape, strict=True)
    )


def tensors(inputs: Mapping[str, Argument]) -> Iterator[Tensor]:
    """Yields the tensors among some arguments."""
    for argument in inputs.values():
        for value in argument if isinstance(argument, list) else (argument,):
            if isinstance(value, Tensor):
                yield value


def where(operation: Operation) -> str:
    """Returns how messages call an operation."""
    return f"{operation.type} {operation.name}"


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
