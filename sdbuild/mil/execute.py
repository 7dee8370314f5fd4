"""The portable executor: runs ML Programs with torch on the CPU.

A function is planned once: operations are found, constants decoded, data types checked. Then each
prediction runs the steps in order. Values have the program's precision: an fp16 result is rounded
to fp16, and overflows as fp16 does, while the arithmetic inside of an operation is in fp32.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdbuild.errors import InvalidProgram, MILError, UnsupportedOp
from sdbuild.mil import ops
from sdbuild.mil.arrays import to_array
from sdbuild.mil.ops._types import Body, Domain, Parameter, Signature, signature
from sdbuild.mil.ops._values import CARRIERS, ROUNDED, carry, rounded
from sdbuild.mil.package import Model
from sdbuild.mil.program import (
    Binding,
    Block,
    Function,
    NamedType,
    Operation,
    StateType,
    TensorType,
    Type,
    Value,
)

Precision = Literal["declared", "fp32"]
Argument = object
"""What an operation is called with: a tensor, a plain Python value, a list of them, or None."""

_NUMPY = {"fp16": np.float16, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
"""The numpy types of values whose carrier has another one."""


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
    """Runs one function of a model; may be called many times.

    `observe` sees every operation that runs, in order; constants and `constexpr` operations are
    worked out once, before. With `precision="fp32"` nothing is rounded to fp16, so that the
    difference to "declared" is what fp16 costs. States keep their values between predictions.

    Raises:
        UnsupportedOp: operations that we lack; names all of them.
        InvalidProgram: a broken rule of names or data types; names the operation.
    """

    def __init__(
        self, model: Model, *, function: str | None = None,
        observe: Callable[[Observation], None] | None = None, precision: Precision = "declared",
    ) -> None:
        chosen = _function(model, function)
        _refuse_unsupported(chosen.block, str(model.source))
        self._inputs = {item.name: _tensor_type(item.type) for item in chosen.inputs
                        if not isinstance(item.type, StateType)}
        self._states = {item.name: _zeros(item) for item in chosen.inputs
                        if isinstance(item.type, StateType)}
        planner = _Planner(model, precision)
        self._block = planner.block(chosen.block, chosen.inputs)
        self._outputs = {name: planner.types[name] for name in chosen.block.outputs}
        self._precision = precision
        self._observe = observe

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for `inputs`, in the program's types (fp32 instead of fp16 if asked for).

        Raises:
            MILError: an input is missing, unknown, or of another shape than the program's.
            InvalidProgram: an operation fails, or its result is not what the program declares.
        """
        values = self._start(inputs)
        for seen in self._block.run(values):
            if self._observe is not None:
                self._observe(seen)
            del seen  # else its inputs would live on while the next operation runs
        return {name: self._result(values[name], t) for name, t in self._outputs.items()}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> Iterator[Observation]:
        """Runs as `predict`, one operation for each item that is asked for."""
        return self._block.run(self._start(inputs))

    def _start(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """The values before the first operation: inputs, cast as declared, and states."""
        missing = sorted(self._inputs.keys() - inputs.keys())
        unknown = sorted(inputs.keys() - self._inputs.keys())
        if missing or unknown:
            raise MILError(
                f"inputs missing: {', '.join(missing) or 'none'}; "
                f"unknown: {', '.join(unknown) or 'none'}",
                hint=f"The program's inputs are: {', '.join(self._inputs)}.",
                missing=missing, unknown=unknown,
            )
        given = {name: _given(name, inputs[name], t) for name, t in self._inputs.items()}
        return given | self._states

    def _result(self, value: Tensor, kind: TensorType) -> np.ndarray:
        if kind.dtype == "fp16" and self._precision == "fp32":
            return value.numpy()
        return value.numpy().astype(_NUMPY.get(kind.dtype, value.numpy().dtype))


def first_nonfinite(
    model: Model, inputs: Mapping[str, np.ndarray], *, function: str | None = None,
    precision: Precision = "declared",
) -> NonFinite | None:
    """The first operation that made NaN without being given any, or infinity likewise; or None."""
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
    """The least and greatest number of each argument that holds any."""
    found = {}
    for name, argument in inputs.items():
        tensors = [t for t in _tensors({name: argument}) if t.numel()]
        if isinstance(argument, float):
            found[name] = (argument, argument)
        elif tensors:
            found[name] = (min(t.min().item() for t in tensors),
                           max(t.max().item() for t in tensors))
    return found


# what runs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """An argument that is known only at run time: values by name, constants in place."""

    sources: tuple[str | Argument, ...]
    parameter: Parameter

    def get(self, values: Mapping[str, Tensor]) -> Argument:
        found = [values[s] if isinstance(s, str) else s for s in self.sources]
        if self.parameter.domain is None:
            return _plain(found[0].numpy(), self.parameter)
        return found if self.parameter.is_list else found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """What the program declares of one output."""

    name: str
    type: TensorType
    is_rounded: bool

    def check(self, value: Tensor, operation: Operation) -> None:
        """Refuses a value that is not as declared."""
        if value.dtype is not CARRIERS[self.type.dtype] or not _fits(value.shape, self.type):
            raise InvalidProgram(
                f"{_where(operation)}: output {self.name}: found {value.dtype} "
                f"{tuple(value.shape)}, expected {self.type.dtype} {self.type.shape}",
                operation=operation.name, output=self.name,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """An operation, ready to run; `frees` are the values that it is the last to use."""

    operation: Operation
    function: Callable
    constants: Mapping[str, Argument]
    bound: Mapping[str, _Bound]
    bodies: tuple[_Block, ...]
    outputs: tuple[_Output, ...]
    frees: tuple[str, ...] = ()

    def run(self, values: dict[str, Tensor]) -> Observation:
        """Adds the outputs to `values` and takes out what is not needed any more."""
        start = time.perf_counter()
        inputs = {name: bound.get(values) for name, bound in self.bound.items()} | self.constants
        bodies = {"bodies": [b.body(values) for b in self.bodies]} if self.bodies else {}
        outputs = self._call(inputs | bodies)
        values.update(outputs)
        for name in self.frees:
            del values[name]
        return Observation(operation=self.operation, inputs=inputs, outputs=outputs,
                           seconds=time.perf_counter() - start)

    def _call(self, inputs: Mapping[str, Argument]) -> dict[str, Tensor]:
        try:
            found = self.function(**inputs)
        except (RuntimeError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise InvalidProgram(f"{_where(self.operation)}: {error}") from error
        results = (found,) if isinstance(found, Tensor) else tuple(found)
        if len(results) != len(self.outputs):
            raise InvalidProgram(f"{_where(self.operation)}: found {len(results)} outputs, "
                                 f"expected {len(self.outputs)}")
        return {output.name: self._finish(output, value, inputs)
                for output, value in zip(self.outputs, results, strict=True)}

    def _finish(self, output: _Output, value: Tensor, inputs: Mapping[str, Argument]) -> Tensor:
        """The value of an output, checked and rounded."""
        output.check(value, self.operation)
        if not output.is_rounded:
            return value
        shared = {_address(tensor) for tensor in _tensors(inputs)}
        return rounded(value, output.type.dtype, is_owned=_address(value) not in shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The steps of a block; `constants` are those that leave it."""

    steps: tuple[_Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]

    def run(self, values: dict[str, Tensor]) -> Iterator[Observation]:
        """Runs each step on `values`, which is changed."""
        values.update(self.constants)
        for step in self.steps:
            yield step.run(values)

    def body(self, outer: Mapping[str, Tensor]) -> Body:
        """The block as a function that sees the values around it."""

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            values = {**outer, **dict(zip(self.inputs, inputs, strict=True))}
            for _ in self.run(values):
                pass
            return tuple(values[name] for name in self.outputs)

        return call


# how it is planned


class _Planner:
    """Turns blocks into steps; knows the types and the constants of the names so far."""

    def __init__(self, model: Model, precision: Precision) -> None:
        self.types: dict[str, TensorType] = {}
        self._model = model
        self._precision = precision
        self._values: dict[str, Value] = {}
        self._tensors: dict[str, Tensor] = {}

    def block(self, block: Block, inputs: tuple[NamedType, ...]) -> _Block:
        """The steps of `block`."""
        self._declare(inputs)
        steps = []
        for operation in block.operations:
            if operation.type == "const":
                self._values[operation.outputs[0].name] = operation.attributes["val"]
                self._declare(operation.outputs)
            elif operation.type.startswith("constexpr_"):
                self._tensors.update(self._step(operation).run({}).outputs)
            else:
                steps.append(self._step(operation))
        unknown = [name for name in block.outputs if name not in self.types]
        if unknown:
            raise InvalidProgram(f"the block's outputs {', '.join(unknown)} are not defined in it")
        return _Block(
            steps=_with_frees(steps, block.outputs), outputs=block.outputs,
            inputs=tuple(item.name for item in inputs),
            constants={n: self._tensor(n) for n in block.outputs if self._is_constant(n)},
        )

    def _declare(self, items: tuple[NamedType, ...]) -> None:
        self.types.update({item.name: _tensor_type(item.type) for item in items})

    def _step(self, operation: Operation) -> _Step:
        function = ops.find(operation.type)
        assert function is not None  # refused before
        rules = signature(function)
        given = _arguments(operation, rules)
        self._check_names(operation)
        constants, bound = {}, {}
        for name, bindings in given.items():
            parameter = rules.parameters[name]
            if all(not isinstance(b, str) or self._is_constant(b) for b in bindings):
                constants[name] = self._constant(bindings, parameter)
            else:
                sources = tuple(self._source(b) for b in bindings)
                bound[name] = _Bound(sources=sources, parameter=parameter)
        dtypes = self._domains(operation, rules, given)
        bodies = tuple(self.block(b, b.inputs) for b in operation.blocks)
        self._declare(operation.outputs)
        return _Step(
            operation=operation, function=function, constants=constants, bound=bound,
            bodies=bodies, outputs=self._outputs(operation, rules, dtypes, constants),
        )

    def _check_names(self, operation: Operation) -> None:
        for name in operation.references():
            if name not in self.types:
                raise InvalidProgram(f"{_where(operation)}: refers to {name}, "
                                     "which is not defined before it")

    def _is_constant(self, name: str) -> bool:
        return name in self._values or name in self._tensors

    def _constant(self, bindings: tuple[Binding, ...], parameter: Parameter) -> Argument:
        """An argument that is known now, as its parameter wants it."""
        if parameter.domain is None:
            binding = bindings[0]
            if isinstance(binding, str) and binding in self._tensors:
                return _plain(self._tensors[binding].numpy(), parameter)
            value = self._values[binding] if isinstance(binding, str) else binding
            return _plain(to_array(self._model, value), parameter)
        tensors = [self._source(b) for b in bindings]
        return tensors if parameter.is_list else tensors[0]

    def _source(self, binding: Binding) -> str | Tensor:
        """A constant as a tensor, anything else by its name."""
        if isinstance(binding, Value):
            return carry(to_array(self._model, binding))
        return self._tensor(binding) if self._is_constant(binding) else binding

    def _tensor(self, name: str) -> Tensor:
        """The constant `name`, decoded once."""
        if name not in self._tensors:
            self._tensors[name] = carry(to_array(self._model, self._values[name]))
        return self._tensors[name]

    def _domains(
        self, operation: Operation, rules: Signature, given: Mapping[str, tuple[Binding, ...]],
    ) -> dict[str, str]:
        """The data type of each domain, if the arguments agree on it."""
        dtypes: dict[str, str] = {}
        for name, bindings in given.items():
            domain = rules.parameters[name].domain
            for binding in bindings if domain is not None else ():
                found = self._dtype(binding)
                expected = domain.dtype or dtypes.setdefault(domain.name, found)
                if domain != Domain() and found != expected:
                    raise InvalidProgram(f"{_where(operation)}: argument {name}: "
                                         f"found {found}, expected {expected}")
        return dtypes

    def _dtype(self, binding: Binding) -> str:
        kind = self.types[binding] if isinstance(binding, str) else _tensor_type(binding.type)
        return kind.dtype

    def _outputs(
        self, operation: Operation, rules: Signature, dtypes: Mapping[str, str],
        constants: Mapping[str, Argument],
    ) -> tuple[_Output, ...]:
        outputs = []
        for position, item in enumerate(operation.outputs):
            kind, rule = self.types[item.name], rules.result(position)
            if rule is None:
                raise InvalidProgram(f"{_where(operation)}: has no output {item.name}")
            expected = _expected_dtype(rule.domain, dtypes, constants, rules)
            if expected not in (None, kind.dtype):
                raise InvalidProgram(f"{_where(operation)}: output {item.name}: "
                                     f"found {expected}, expected {kind.dtype}")
            is_exact = rule.is_moved or (self._precision == "fp32" and kind.dtype == "fp16")
            is_rounded = kind.dtype in ROUNDED and not is_exact
            outputs.append(_Output(name=item.name, type=kind, is_rounded=is_rounded))
        return tuple(outputs)


def _expected_dtype(
    domain: Domain, dtypes: Mapping[str, str], constants: Mapping[str, Argument],
    rules: Signature,
) -> str | None:
    """The data type of a result in `domain`; None if nothing determines it."""
    if domain.argument is not None:
        return str(constants.get(domain.argument, rules.parameters[domain.argument].default))
    return domain.dtype or (dtypes.get(domain.name) if domain.name else None)


def _arguments(operation: Operation, rules: Signature) -> dict[str, tuple[Binding, ...]]:
    """The bindings of each argument; an attribute that is a parameter is one, too."""
    given = dict(operation.inputs)
    given |= {n: (v,) for n, v in operation.attributes.items() if n in rules.parameters}
    unknown = sorted(given.keys() - rules.parameters.keys())
    missing = [p.name for p in rules.parameters.values() if p.is_required
               and p.name not in given and p.name != "bodies"]
    if unknown or missing:
        raise InvalidProgram(
            f"{_where(operation)}: arguments missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}; "
            f"expected some of {', '.join(rules.parameters)}"
        )
    return given


def _with_frees(steps: list[_Step], kept: tuple[str, ...]) -> tuple[_Step, ...]:
    """The steps, each with the values that it is the last to use, made by these steps."""
    last: dict[str, int] = {}
    made: dict[str, int] = {}
    for position, step in enumerate(steps):
        made |= {output.name: position for output in step.outputs}
        last |= dict.fromkeys(_references(step.operation), position)
    frees: list[list[str]] = [[] for _ in steps]
    for name, position in made.items():
        if name not in kept:
            frees[last.get(name, position)].append(name)
    return tuple(replace(s, frees=tuple(f)) for s, f in zip(steps, frees, strict=True))


def _references(operation: Operation) -> Iterator[str]:
    """The names that an operation refers to, those in its blocks included."""
    yield from operation.references()
    for block in operation.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from _references(inner)


# small helpers


def _function(model: Model, name: str | None) -> Function:
    if name is None:
        return model.program.main
    if name not in model.program.functions:
        raise InvalidProgram(f"{model.source}: no function {name!r}; "
                             f"found: {', '.join(model.program.functions)}")
    return model.program.functions[name]


def _refuse_unsupported(block: Block, source: str) -> None:
    counts = Counter(o.type for o in _operations(block)
                     if o.type != "const" and ops.find(o.type) is None)
    if counts:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise UnsupportedOp(
            f"{source}: operations that the portable executor lacks: {listed}",
            hint="Add a function of that name to its family in sdbuild/mil/ops/.",
            counts=dict(counts),
        )


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _tensor_type(kind: Type) -> TensorType:
    """The tensor type of a value or of what a state holds; lists and such are not computed with."""
    if isinstance(kind, StateType):
        kind = kind.wrapped
    return kind if isinstance(kind, TensorType) else TensorType("string")


def _zeros(item: NamedType) -> Tensor:
    kind = _tensor_type(item.type)
    return torch.zeros(kind.shape, dtype=CARRIERS[kind.dtype])


def _given(name: str, array: np.ndarray, kind: TensorType) -> Tensor:
    """An input, cast to the type that the program declares."""
    array = np.asarray(array)
    if not _fits(array.shape, kind) or array.dtype.kind not in "biuf":
        raise MILError(f"input {name}: found {array.dtype} {array.shape}, "
                       f"expected {kind.dtype} {kind.shape}", input=name)
    value = carry(array).to(CARRIERS[kind.dtype])
    return rounded(value, kind.dtype, is_owned=True) if kind.dtype in ROUNDED else value


def _fits(shape: tuple[int, ...], kind: TensorType) -> bool:
    if ... in kind.shape:
        return True
    return len(shape) == len(kind.shape) and all(
        expected in (None, found) for found, expected in zip(shape, kind.shape, strict=True)
    )


def _tensors(inputs: Mapping[str, Argument]) -> Iterator[Tensor]:
    """The tensors among the arguments."""
    for argument in inputs.values():
        for value in argument if isinstance(argument, list) else (argument,):
            if isinstance(value, Tensor):
                yield value


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _plain(array: np.ndarray, parameter: Parameter) -> Argument:
    """An array as a Python value: a list, or the only element."""
    return array.tolist() if parameter.is_list else array.item()


def _where(operation: Operation) -> str:
    return f"{operation.type} {operation.name}"
