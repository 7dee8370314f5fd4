"""The portable executor: runs ML Programs with torch on the CPU.

A function is planned once (`planner.py`), then each prediction runs the steps in order. Values
have the program's precision: an fp16 result is rounded to fp16, and overflows as fp16 does, while
the arithmetic inside of an operation is in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdbuild.base.errors import MILError
from sdbuild.mil.execute.executable import Argument, Observation, fits, tensors
from sdbuild.mil.execute.fusion import fuse_chains
from sdbuild.mil.execute.ops._values import CARRIERS, ROUNDED, carry, rounded
from sdbuild.mil.execute.planner import Planner, Precision, refuse_unsupported, tensor_type
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.decode import located
from sdbuild.mil.ir.program import NamedType, Operation, StateType, TensorType

_NUMPY = {"fp16": np.float16, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
"""The numpy types of values whose carrier has another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite:
    """The first operation that made NaN or infinity; `ranges` are those of its inputs."""

    operation: Operation
    output: str
    nans: int
    infinities: int
    ranges: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        given = ", ".join(f"{k} in [{a:g}, {b:g}]" for k, (a, b) in self.ranges.items())
        return (f"{self.operation.type} {self.operation.name}: {self.nans} NaN and "
                f"{self.infinities} infinite in {self.output}, from {given or 'nothing'}")


class Executor:
    """Runs one function of a model, the default one if none is named; may be called many times.

    `observe` sees every operation that runs, in order; constants and `constexpr` operations are
    worked out before. With `precision="fp32"` nothing is rounded to fp16, so that the difference
    to "declared" is what fp16 costs. Constants are decoded once and kept; with `weight_bytes`,
    those beyond it are decoded for each use. `is_fast` runs chains of operations in slices when
    nobody observes (`fusion.py`): the same bits, sooner. States keep their values between
    predictions.

    Raises:
        UnsupportedOp: operations that we lack; names all of them.
        InvalidProgram: a broken rule of names or data types; names the operation.
    Units:
        weight_bytes: of decoded constants, four for an element of fp16.
    """

    def __init__(
        self, model: Model, *, function: str | None = None,
        observe: Callable[[Observation], None] | None = None, precision: Precision = "declared",
        weight_bytes: int | None = None, is_fast: bool = True,
    ) -> None:
        chosen = model.function(function)
        refuse_unsupported(chosen.block, str(model.source))
        self._inputs = {item.name: tensor_type(item.type) for item in chosen.inputs
                        if not isinstance(item.type, StateType)}
        self._states = {item.name: _zeros(item) for item in chosen.inputs
                        if isinstance(item.type, StateType)}
        ceiling = math.inf if weight_bytes is None else weight_bytes
        planner = Planner(model, precision, ceiling)
        with located(str(model.source), f"`sdbuild mil verify {model.source}` lists all that is "
                     "wrong: its files may be damaged, or those of another model"):
            self._block = planner.block(chosen.block, chosen.inputs)
        self._fast = fuse_chains(self._block) if is_fast and observe is None else None
        self._outputs = {name: planner.types[name] for name in chosen.block.outputs}
        self._precision = precision
        self._observe = observe

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for `inputs`, in the program's types (fp32 instead of fp16 if asked
        for).

        Raises:
            MILError: an input is missing, unknown, or of another shape than the program's.
            InvalidProgram: an operation fails, or its result is not what the program declares.
        """
        values = self._start(inputs)
        if self._observe is None:
            with torch.inference_mode():  # nothing is noted for gradients: a tenth of small steps
                (self._fast or self._block).apply(values)
        else:
            for seen in self._block.run(values):
                self._observe(seen)
                del seen  # else its inputs would live on while the next operation runs
        return self._results(values)

    def trace(self, inputs: Mapping[str, np.ndarray]) -> Iterator[Observation]:
        """Runs as `predict`, one operation for each item that is asked for.

        Shapes:
            inputs: as the program declares them.
        """
        return self._block.run(self._start(inputs))

    def variations(
        self, inputs: Mapping[str, np.ndarray],
        vary: Callable[[Operation, Mapping[str, Tensor]], Mapping[str, Argument] | None],
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yields the outputs of runs in which a single operation is given other arguments, with its
        name, and last those of the run as it is, with an empty one.

        What comes before the operation is computed once, so that all runs take half of the time
        that they would take from the start.

        Args:
            vary: gives the arguments that an operation is to have, by what there is when it runs;
                None if it does not vary.
        Shapes:
            inputs: as the program declares them.
        """
        values = {**self._start(inputs), **self._block.constants}
        with torch.inference_mode():
            for at, step in enumerate(self._block.steps):
                given = vary(step.operation, values)
                if given is not None:
                    branch = dict(values)
                    step.apply_with(branch, given)
                    for later in self._block.steps[at + 1:]:
                        later.apply(branch)
                    yield step.operation.name, self._results(branch)
                step.apply(values)
            yield "", self._results(values)

    def _results(self, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: self._result(values[name], t) for name, t in self._outputs.items()}

    def _start(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Returns the values before the first operation: inputs, cast as declared, and states."""
        missing = sorted(self._inputs.keys() - inputs.keys())
        unknown = sorted(inputs.keys() - self._inputs.keys())
        if missing or unknown:
            raise MILError(
                f"inputs missing: {', '.join(missing) or 'none'}; "
                f"unknown: {', '.join(unknown) or 'none'}",
                hint=f"The program's inputs are: {', '.join(self._inputs)}.",
                missing=missing, unknown=unknown,
            )
        given = {name: _input_tensor(name, inputs[name], t) for name, t in self._inputs.items()}
        return given | self._states

    def _result(self, value: Tensor, kind: TensorType) -> np.ndarray:
        if kind.dtype == "fp16" and self._precision == "fp32":
            return value.numpy()
        return value.numpy().astype(_NUMPY.get(kind.dtype, value.numpy().dtype))


def first_nonfinite(
    model: Model, inputs: Mapping[str, np.ndarray], *, function: str | None = None,
    precision: Precision = "declared",
) -> NonFinite | None:
    """Returns the first operation that made NaN without being given any, or infinity likewise; or
    None.

    Shapes:
        inputs: as the model declares them.
    """
    for seen in Executor(model, function=function, precision=precision).trace(inputs):
        ranges = _ranges(seen.inputs)
        bounds = np.array(list(ranges.values()))
        for name, value in seen.outputs.items():
            nans, infinities = int(value.isnan().sum()), int(value.isinf().sum())
            if (nans and not np.isnan(bounds).any()) or (infinities and not np.isinf(bounds).any()):
                return NonFinite(operation=seen.operation, output=name, ranges=ranges,
                                 nans=nans, infinities=infinities)
    return None


def _ranges(inputs: Mapping[str, Argument]) -> dict[str, tuple[float, float]]:
    """Returns the least and greatest number of each argument that holds any."""
    found = {}
    for name, argument in inputs.items():
        filled = [t for t in tensors({name: argument}) if t.numel()]
        if isinstance(argument, float):
            found[name] = (argument, argument)
        elif filled:
            found[name] = (min(t.min().item() for t in filled),
                           max(t.max().item() for t in filled))
    return found


def _zeros(item: NamedType) -> Tensor:
    kind = tensor_type(item.type)
    return torch.zeros(kind.shape, dtype=CARRIERS[kind.dtype])


def _input_tensor(name: str, array: np.ndarray, kind: TensorType) -> Tensor:
    """Returns an input, cast to the type that the program declares."""
    array = np.asarray(array)
    if not fits(array.shape, kind) or array.dtype.kind not in "biuf":
        raise MILError(f"input {name}: found {array.dtype} {array.shape}, "
                       f"expected {kind.dtype} {kind.shape}", input=name)
    value = carry(array).to(CARRIERS[kind.dtype])
    return rounded(value, kind.dtype, is_owned=True) if kind.dtype in ROUNDED else value
