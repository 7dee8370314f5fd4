"""A lowered program: what is made once for all checkpoints of an architecture, as a folder.

`model.mlmodel` is the program with the places of all blobs; `bindings.json` what belongs into each
place; `constants.bin` the blobs that no checkpoint changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.base.parsing import Fields, json_file
from sdbuild.mil.files.package import SPEC_FILE, read_spec
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.proto import Message, serialize

BINDINGS = "bindings.json"
CONSTANTS = "constants.bin"

FLOATS: Mapping[str, np.dtype[Any]] = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
"""The types of places that take a parameter."""

_LONGEST_SIDE = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A place in the program: a blob at `offset`, or a constant written in place (`value`).

    It takes a parameter (transposed, if its first axis moved), or a constant blob of the lowered
    program at the offset `constant` of `CONSTANTS`.
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
    """Writes a lowered program; its constants are there already."""
    (folder / SPEC_FILE).write_bytes(serialize(lowered.spec))
    table = {
        "parameters": {name: list(shape) for name, shape in lowered.parameters.items()},
        "bindings": [asdict(binding) for binding in lowered.bindings],
    }
    (folder / BINDINGS).write_text(json.dumps(table, indent=0), "utf-8")


def read_lowered(folder: Path) -> Lowered:
    """Returns the lowered program in a folder.

    Raises:
        StepError: its table is not what `write_lowered` writes; InvalidProgram if the model is none
            or describes no program.
    """
    parameters, bindings = read_bindings(folder / BINDINGS)
    return Lowered(
        spec=read_spec(folder / SPEC_FILE), parameters=parameters, bindings=bindings,
        constants=folder / CONSTANTS,
    )


def read_bindings(path: Path) -> tuple[dict[str, tuple[int, ...]], tuple[Binding, ...]]:
    """Returns the shapes of a lowered program's parameters, and its bindings.

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
    is_fit = taken is not None and prod(taken) == prod(found.shape) and found.dtype in FLOATS
    if found.constant is not None or not is_fit:
        raise StepError(f"{fields.where}: expected a constant, or a parameter of floats of its "
                        f"shape, {list(found.shape)}")
    return found
