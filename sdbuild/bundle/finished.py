"""Finished packages in the place of networks: what they must be, and what they are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbuild.base.errors import StepError
from sdbuild.bundle.inferred import CELL_PX
from sdbuild.families import Component, Dims
from sdbuild.families.nouns import SIZES
from sdbuild.mil.compress.compress import opset_number
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.read import read_model
from sdbuild.mil.inspect.packed import packing

_TARGETS = {"iOS16": 6, "iOS17": 7, "iOS18": 8}
_CELLS = ("h", "w")
TOKENS = 49_408
"""The words of CLIP's vocabulary, which all text encoders share."""


def check_package(model: Model, component: Component, params: Mapping[str, Any]) -> None:
    """Makes sure that a package is of a component, and what a recipe says of it.

    Args:
        params: the sizes, layout of attention and target that the recipe says.
    Raises:
        StepError: its ports, sizes, layout or opset are others; says which.
    """
    component = component.with_ports(len(model.inputs), len(model.outputs))
    where = f"the package of {component.name}"
    for kind, ports, found in (("inputs", component.inputs, model.inputs),
                               ("outputs", component.outputs, model.outputs)):
        names = [port.name for port in ports]
        if set(names) - found.keys() or (kind == "inputs" and found.keys() - set(names)):
            raise StepError(f"{where}: {kind} {', '.join(found)}, expected {', '.join(names)}",
                            hint="it is of another component or family, or of another converter")
    for port in component.inputs:
        shape = model.input_shapes[port.name]
        wanted = tuple(_size(letter, params, size)
                       for letter, size in zip(port.shape, shape, strict=False))
        if port.shape and (len(shape) != len(port.shape) or shape != wanted):
            raise StepError(
                f"{where}: {port.name} is {_text(shape)}, expected {_text(wanted)}",
                hint="size and batch are those of the packages: leave them out, or say what they "
                     "have")
    _check_program(model, where, params)


def _check_program(model: Model, where: str, params: Mapping[str, Any]) -> None:
    opset = max(opset_number(function.opset) for function in model.program.functions.values())
    if opset > _TARGETS[params["target"]]:
        needed = next((name for name, number in _TARGETS.items() if number == opset), "a later one")
        raise StepError(f"{where}: needs {needed}, expected target={params['target']}",
                        hint=f"use target={needed}")


def check_packing(label: str, models: Sequence[Path], nbits: int | None) -> None:
    """Makes sure that weights have the palettes that a recipe says, and so a bundle's manifest.

    Raises:
        StepError: they are packed otherwise.
    """
    found = frozenset().union(*(packing(read_model(model).program) for model in models))
    if found and found != {nbits}:
        said = ", ".join(sorted(map(str, found)))
        raise StepError(
            f"{label}: its package came with packed weights ({said}), expected {nbits or 'fp16'}",
            hint="the recipe's quant and palettize must say what the packages have")


def _size(letter: int | str, params: Mapping[str, Any], found: int) -> int:
    """Returns the size that a recipe's settings give a letter; what they leave open is as found."""
    if isinstance(letter, int):
        return letter
    if letter not in SIZES or SIZES[letter] not in params:
        return found
    size: int = params[SIZES[letter]]
    return size // CELL_PX if letter in _CELLS else size


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def dims_of(model: Model, component: Component) -> Dims:
    """Returns the numbers of the letters in a component's inputs, as a package has them."""
    return {letter: size for port in component.inputs if port.name in model.input_shapes
            for letter, size in zip(port.shape, model.input_shapes[port.name], strict=False)
            if isinstance(letter, str)}
