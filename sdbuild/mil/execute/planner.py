"""Plans a run of a program: finds operations, decodes constants, checks names and data types."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdbuild.base.errors import InvalidProgram, UnsupportedOp
from sdbuild.mil.execute import ops
from sdbuild.mil.execute.executable import (
    LARGEST_ELEMENTS,
    Argument,
    ExecutableBlock,
    Instruction,
    LazyConstant,
    Operand,
    Output,
    Source,
    plain,
    where,
)
from sdbuild.mil.execute.ops._types import Domain, Parameter, Signature, signature
from sdbuild.mil.execute.ops._values import CARRIERS, ROUNDED, carry
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.program import (
    Binding,
    Block,
    ListType,
    NamedType,
    Operation,
    StateType,
    TensorType,
    Type,
    Value,
)

Precision = Literal["declared", "fp32"]


class Planner:
    """Turns blocks into steps; knows the types and the constants of the names so far.

    Constants are decoded once and kept, until they fill `weight_bytes`; those that come after are
    decoded for each use.
    """

    def __init__(self, model: Model, precision: Precision, weight_bytes: float = math.inf) -> None:
        self.types: dict[str, TensorType] = {}
        self._model = model
        self._precision = precision
        self._free_bytes = weight_bytes
        self._constants: dict[str, Callable[[], Tensor]] = {}
        self._values: dict[str, Value] = {}
        self._kept: dict[str, Tensor] = {}

    def block(self, block: Block, inputs: tuple[NamedType, ...]) -> ExecutableBlock:
        """Returns the steps of `block`.

        Raises:
            InvalidProgram: a broken rule of names or data types; names the operation.
        """
        self._declare(inputs, "input")
        steps = []
        for operation in block.operations:
            if operation.type == "const":
                self._add_const(operation)
            elif operation.type.startswith("constexpr_"):
                self._add_constexpr(operation)
            else:
                steps.append(self._step(operation))
        unknown = [name for name in block.outputs if name not in self.types]
        if unknown:
            raise InvalidProgram(f"the block's outputs {', '.join(unknown)} are not defined in it")
        return ExecutableBlock(
            steps=with_frees(steps, block.outputs), outputs=block.outputs,
            inputs=tuple(item.name for item in inputs),
            constants={n: self._leaving(n) for n in block.outputs if n in self._constants},
        )

    def _declare(self, items: tuple[NamedType, ...], place: str) -> None:
        for item in items:
            kind = self.types[item.name] = tensor_type(item.type)
            if (kind.count or 0) > LARGEST_ELEMENTS:
                raise InvalidProgram(f"{place} {item.name}: found {kind.count} elements, "
                                     f"expected at most {LARGEST_ELEMENTS} elements")

    def _add_const(self, operation: Operation) -> None:
        if len(operation.outputs) != 1 or "val" not in operation.attributes:
            missing = "argument val: it is" if operation.outputs else "its output is"
            raise InvalidProgram(f"{where(operation)}: {missing} missing")
        name, value = operation.outputs[0].name, operation.attributes["val"]
        self._values[name] = value
        self._constants[name] = lambda: carry(to_array(self._model, value))
        self._declare(operation.outputs, f"{where(operation)}: output")

    def _add_constexpr(self, operation: Operation) -> None:
        """Decodes what fits at once, all outputs together; the step of the rest is not kept."""
        step = self._step(operation)
        names = [output.name for output in step.outputs]
        if self._reserve(*names):
            self._kept.update(step.run({}).outputs)
        for name in names:
            self._constants[name] = partial(self._decoded, operation, name)

    def _decoded(self, operation: Operation, name: str) -> Tensor:
        return self._step(operation).run({}).outputs[name]

    def _reserve(self, *names: str) -> bool:
        """Whether decoded constants may be kept; if so, they take from what is free."""
        kinds = [self.types[name] for name in names]
        needed = sum((kind.count or 0) * CARRIERS[kind.dtype].itemsize for kind in kinds)
        if needed > self._free_bytes:
            return False
        self._free_bytes -= needed
        return True

    def _tensor(self, name: str) -> Tensor:
        """Returns the constant `name`."""
        return self._kept[name] if name in self._kept else self._constants[name]()

    def _leaving(self, name: str) -> Tensor:
        """Returns the constant `name`, which is an output of its block."""
        try:
            self._refuse_text(name)
            return self._tensor(name)
        except InvalidProgram as error:
            raise InvalidProgram(f"the block's output {name}: {error}") from error

    def _refuse_text(self, binding: Binding) -> None:
        value = self._values.get(binding) if isinstance(binding, str) else binding
        is_tensor = value is None or (
            isinstance(value.type, TensorType) and value.type.dtype in CARRIERS)
        if not is_tensor or self._dtype(binding) not in CARRIERS:
            raise InvalidProgram("found a string or a list, expected a tensor of numbers")

    def _source(self, binding: Binding) -> Source:
        """Returns a constant as a tensor, or how to decode it; anything else by its name."""
        self._refuse_text(binding)
        if isinstance(binding, Value):
            return carry(to_array(self._model, binding))
        if binding not in self._constants:
            return binding
        if binding not in self._kept:
            if not self._reserve(binding):
                return LazyConstant(decode=self._constants[binding])
            self._kept[binding] = self._constants[binding]()
        return self._kept[binding]

    def _step(self, operation: Operation) -> Instruction:
        function = ops.find(operation.type)
        assert function is not None  # refused before
        rules = signature(function)
        given = _arguments(operation, rules)
        self._check_names(operation)
        dtypes = self._domains(operation, rules, given)
        constants: dict[str, Argument] = {}
        operands: dict[str, Operand] = {}
        for name, bindings in given.items():
            try:
                found = self._argument(bindings, rules.parameters[name], dtypes)
            except (InvalidProgram, ValueError) as error:
                raise InvalidProgram(f"{where(operation)}: argument {name}: {error}") from error
            if isinstance(found, Operand):
                operands[name] = found
            else:
                constants[name] = found
        bodies = tuple(self.block(b, b.inputs) for b in operation.blocks)
        self._declare(operation.outputs, f"{where(operation)}: output")
        return Instruction(
            operation=operation, function=function, constants=constants, operands=operands,
            bodies=bodies, outputs=self._outputs(operation, rules, dtypes, constants),
        )

    def _check_names(self, operation: Operation) -> None:
        for name in operation.references():
            if name not in self.types:
                raise InvalidProgram(f"{where(operation)}: refers to {name}, "
                                     "which is not defined before it")

    def _argument(
        self, bindings: tuple[Binding, ...], parameter: Parameter, dtypes: Mapping[str, str]
    ) -> Argument:
        """Returns an argument as its parameter wants it, an `Operand` if it is not known yet."""
        domain = parameter.domain
        if domain is None and all(map(self._is_known, bindings)):
            return plain(self._array(bindings[0]), parameter)
        sources = tuple(self._source(binding) for binding in bindings)
        if domain is not None and domain.casts_constants:
            sources = tuple(_cast(source, CARRIERS[dtypes[domain.name]]) for source in sources)
        if not all(isinstance(source, Tensor) for source in sources):
            return Operand(sources=sources, parameter=parameter)
        return list(sources) if parameter.is_list else sources[0]

    def _array(self, binding: Binding) -> np.ndarray:
        """Returns a constant that becomes a plain Python value: strings have no tensor."""
        if isinstance(binding, str) and binding not in self._values:
            return self._tensor(binding).numpy()
        value = self._values[binding] if isinstance(binding, str) else binding
        return to_array(self._model, value)

    def _domains(
        self, operation: Operation, rules: Signature, given: Mapping[str, tuple[Binding, ...]],
    ) -> dict[str, str]:
        """Returns the data type of each domain, if the arguments agree on it; constants come
        last."""
        dtypes: dict[str, str] = {}
        pairs = [(name, binding) for name, bindings in given.items() for binding in bindings]
        for name, binding in sorted(pairs, key=lambda pair: self._is_known(pair[1])):
            domain = rules.parameters[name].domain
            if domain is None:
                continue
            found = self._dtype(binding)
            expected = domain.dtype or dtypes.setdefault(domain.name, found)
            is_cast = domain.casts_constants and self._is_known(binding)
            if domain != Domain() and found != expected and not is_cast:
                raise InvalidProgram(f"{where(operation)}: argument {name}: "
                                     f"found {found}, expected {expected}")
        return dtypes

    def _is_known(self, binding: Binding) -> bool:
        return isinstance(binding, Value) or binding in self._constants

    def _dtype(self, binding: Binding) -> str:
        kind = self.types[binding] if isinstance(binding, str) else tensor_type(binding.type)
        return kind.dtype

    def _outputs(
        self, operation: Operation, rules: Signature, dtypes: Mapping[str, str],
        constants: Mapping[str, Argument],
    ) -> tuple[Output, ...]:
        outputs = []
        for position, item in enumerate(operation.outputs):
            kind, rule = self.types[item.name], rules.result(position)
            if rule is None:
                raise InvalidProgram(f"{where(operation)}: has no output {item.name}")
            expected = _expected_dtype(rule.domain, dtypes, constants, rules)
            if expected not in (None, kind.dtype):
                raise InvalidProgram(f"{where(operation)}: output {item.name}: "
                                     f"found {expected}, expected {kind.dtype}")
            is_exact = rule.is_moved or (self._precision == "fp32" and kind.dtype == "fp16")
            outputs.append(Output(
                name=item.name, type=kind, is_moved=rule.is_moved,
                is_rounded=kind.dtype in ROUNDED and not is_exact,
            ))
        return tuple(outputs)


def refuse_unsupported(block: Block, source: str) -> None:
    """Refuses a block with operations that we lack, those in its nested blocks included.

    Raises:
        UnsupportedOp: names all of them, with their number.
    """
    counts = Counter(o.type for o in _operations(block)
                     if o.type != "const" and ops.find(o.type) is None)
    if counts:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise UnsupportedOp(
            f"{source}: operations that the portable executor lacks: {listed}",
            hint="Add a function of that name to its family in sdbuild/mil/ops/.",
            counts=dict(counts),
        )


def tensor_type(kind: Type) -> TensorType:
    """Returns the type of the tensor that carries a value; strings for what is not computed with.

    A state is what it holds, a list its elements along a first axis. That is of any length: the
    one in a list's type is where it begins, and coremltools gives it to lists that grow, too.
    """
    match kind:
        case StateType(wrapped):
            return tensor_type(wrapped)
        case ListType(TensorType(dtype, shape)):
            return TensorType(dtype, (None, *shape))
        case TensorType():
            return kind
    return TensorType("string")


def with_frees(steps: Iterable, kept: tuple[str, ...]) -> tuple:
    """Returns the steps, each with the values that it is the last to use, made by these steps."""
    steps = list(steps)
    last: dict[str, int] = {}
    made: dict[str, int] = {}
    for position, step in enumerate(steps):
        made |= {output.name: position for output in step.outputs}
        last |= dict.fromkeys(step.needs(), position)
    frees: list[list[str]] = [[] for _ in steps]
    for name, position in made.items():
        if name not in kept:
            frees[last.get(name, position)].append(name)
    return tuple(replace(s, frees=tuple(f)) for s, f in zip(steps, frees, strict=True))


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _expected_dtype(
    domain: Domain, dtypes: Mapping[str, str], constants: Mapping[str, Argument],
    rules: Signature,
) -> str | None:
    """Returns the data type of a result in `domain`; None if nothing determines it."""
    if domain.argument is not None:
        return str(constants.get(domain.argument, rules.parameters[domain.argument].default))
    return domain.dtype or (dtypes.get(domain.name) if domain.name else None)


def _arguments(operation: Operation, rules: Signature) -> dict[str, tuple[Binding, ...]]:
    """Returns the bindings of each argument; an attribute that is a parameter is one, too."""
    given = dict(operation.inputs)
    given |= {n: (v,) for n, v in operation.attributes.items() if n in rules.parameters}
    unknown = sorted(given.keys() - rules.parameters.keys())
    missing = [p.name for p in rules.parameters.values() if p.is_required
               and p.name not in given and p.name != "bodies"]
    if unknown or missing:
        raise InvalidProgram(
            f"{where(operation)}: arguments missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}; "
            f"expected some of {', '.join(rules.parameters)}"
        )
    for name, bindings in given.items():
        if not bindings or (len(bindings) > 1 and not rules.parameters[name].is_list):
            raise InvalidProgram(f"{where(operation)}: argument {name}: found {len(bindings)} "
                                 "values that it is bound to, expected one")
    return given


def _cast(source: Source, dtype: torch.dtype) -> Source:
    """Returns a constant in the carrier `dtype`; names stay."""
    if isinstance(source, LazyConstant):
        return LazyConstant(decode=lambda: source.decode().to(dtype))
    return source.to(dtype) if isinstance(source, Tensor) else source
