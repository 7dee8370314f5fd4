"""The annotations of operations.

An operation is a function named as in MIL, its parameters named as in MIL:

    def softmax(x: T, axis: int = -1) -> T: ...
    def less(x: T, y: T) -> Bool: ...
    def gather(x: T, indices: I, axis: int = 0) -> Moved[T]: ...

Arguments in the same domain (`T`, `U`, …) share a data type, and so does a result in it. An
argument without a domain is handed over as a plain Python value. A result is rounded to its data
type, unless it is `Moved`: then its elements are elements of the arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A set of values with one data type: a free one, `dtype`, or that named by `argument`.

    With `casts_constants`, constants may be of other types: they are cast to that of the values.
    """

    name: str = ""
    dtype: str | None = None
    argument: str | None = None
    casts_constants: bool = False


@dataclass(frozen=True, slots=True)
class _MovedMark:
    """Marks a result whose elements are elements of the arguments."""


T = Annotated[Tensor, Domain(name="T")]
U = Annotated[Tensor, Domain(name="U")]
V = Annotated[Tensor, Domain(name="V")]
I = Annotated[Tensor, Domain(name="I")]  # noqa: E741  # as in MIL: indices
Mixed = Annotated[Tensor, Domain(name="T", casts_constants=True)]
Bool = Annotated[Tensor, Domain(dtype="bool")]
Int32 = Annotated[Tensor, Domain(dtype="int32")]
Mask = Annotated[Tensor, Domain(dtype="uint1")]
Any_ = Annotated[Tensor, Domain()]
ByDtype = Annotated[Tensor, Domain(argument="dtype")]
ByOutputDtype = Annotated[Tensor, Domain(argument="output_dtype")]
ByIndicesDtype = Annotated[Tensor, Domain(argument="output_indices_dtype")]
Body = Callable[..., tuple[Tensor, ...]]
"""A nested block: called with the values of its inputs, it gives those of its outputs."""

_X = TypeVar("_X")
Moved = Annotated[_X, _MovedMark()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of an operation; `domain` is None if it takes a plain Python value."""

    name: str
    domain: Domain | None
    is_list: bool
    is_required: bool
    default: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultType:
    """One result of an operation, or all of them if their number is open."""

    domain: Domain
    is_moved: bool
    is_list: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The parameters and results of an operation, as its annotations declare them."""

    parameters: dict[str, Parameter]
    results: tuple[ResultType, ...]

    def result(self, position: int) -> ResultType | None:
        """The rule for the result at `position`, or None if there is none there."""
        if self.results[0].is_list:
            return self.results[0]
        return self.results[position] if position < len(self.results) else None


@cache
def signature(function: Callable) -> Signature:
    """The signature of an operation, read once."""
    hints = get_type_hints(function, include_extras=True)
    returns = hints.pop("return")
    parameters = inspect.signature(function).parameters
    return Signature(
        parameters={name: _parameter(p, hints[name]) for name, p in parameters.items()},
        results=_results(returns),
    )


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    if get_origin(hint) in (Union, UnionType):
        hint = next(option for option in get_args(hint) if option is not NoneType)
    is_list = get_origin(hint) is list
    element = get_args(hint)[0] if is_list else hint
    is_required = parameter.default is inspect.Parameter.empty
    return Parameter(
        name=parameter.name, domain=_domain(element), is_list=is_list, is_required=is_required,
        default=None if is_required else parameter.default,
    )


def _results(hint: Any) -> tuple[ResultType, ...]:
    if get_origin(hint) is tuple:
        return tuple(_result(each) for each in get_args(hint))
    if get_origin(hint) is list:
        return (_result(get_args(hint)[0], is_list=True),)
    return (_result(hint),)


def _result(hint: Any, is_list: bool = False) -> ResultType:
    is_moved = any(isinstance(mark, _MovedMark) for mark in hint.__metadata__)
    return ResultType(domain=_domain(hint) or Domain(), is_moved=is_moved, is_list=is_list)


def _domain(hint: Any) -> Domain | None:
    marks = getattr(hint, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Domain)), None)
