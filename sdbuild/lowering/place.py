"""Identifies each constant of a lowered program: a parameter, or a constant of its own.

A constant is a stand-in exactly, or it holds none of the stand-ins' numbers; anything between is a
clash, and never a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.lowering.bind import inline_constants, with_values
from sdbuild.lowering.lowered import CONSTANTS, Binding, Lowered
from sdbuild.lowering.recording import Written
from sdbuild.lowering.standins import StandIns
from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.ir.decode import decode_program
from sdbuild.mil.ir.encode import encode_program
from sdbuild.mil.ir.proto import Message

HINT = "lower=direct converts with the real weights in place of placeholders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant of a lowered program: a blob at `offset`, or one written in place (None).

    It is the stand-in of `parameter`, or no stand-in; then `clashing` are the numbers of stand-ins
    that it holds nevertheless.
    """

    name: str
    dtype: str
    array: np.ndarray
    offset: int | None
    parameter: str | None
    is_transposed: bool
    clashing: frozenset[float]


def identified(
    standins: StandIns, written: Iterable[Written], spec: Message
) -> tuple[Constant, ...]:
    """Returns the constants of a program that was lowered with stand-ins: blobs in order, then
    those that coremltools wrote in place, because they are small."""
    blobs = [(blob.name, blob.dtype, blob.array, blob.offset) for blob in written]
    inline = [
        (name, dtype, elements.reshape(shape), None)
        for name, dtype, shape, elements in inline_constants(decode_program(spec.mlProgram))
    ]
    return tuple(_identified(standins, *constant) for constant in (*blobs, *inline))


def _identified(
    standins: StandIns, name: str, dtype: str, array: np.ndarray, offset: int | None
) -> Constant:
    parameter, is_transposed = standins.parameter(array) or (None, False)
    return Constant(
        name=name, dtype=dtype, array=array, offset=offset, parameter=parameter,
        is_transposed=is_transposed,
        clashing=frozenset() if parameter else standins.numbers_in(array),
    )


def placed(
    standins: StandIns, constants: Iterable[Constant], spec: Message, folder: Path
) -> Lowered:
    """Returns the lowered program with what belongs where; writes `CONSTANTS` into `folder`.

    No number of a stand-in is left in it, so its bytes do not depend on them.

    Raises:
        StepError: a constant holds some of a stand-in's numbers, or a parameter is not in the
            program exactly once; a guess would be a wrong weight.
    """
    constants = tuple(constants)
    _check_no_clash(standins, constants)
    _check_once(standins.shapes, constants)
    path = folder / CONSTANTS
    with BlobWriter(path) as writer:
        bindings = [_binding(constant, writer) for constant in constants]
    zeros = {c.name: bytes(c.array.nbytes) for c in constants if c.parameter and c.offset is None}
    made = type(spec).FromString(spec.SerializeToString())
    made.mlProgram.CopyFrom(encode_program(with_values(decode_program(spec.mlProgram), zeros)))
    return Lowered(
        spec=made, parameters=standins.shapes, bindings=tuple(filter(None, bindings)),
        constants=path,
    )


def _binding(constant: Constant, writer: BlobWriter) -> Binding | None:
    """Returns the constant's place; None if it is written in place, and no parameter's."""
    shape, dtype = constant.array.shape, constant.dtype
    if constant.parameter is None:
        if constant.offset is None:
            return None
        place = writer.write(dtype, constant.array.tobytes())
        return Binding(dtype=dtype, shape=shape, offset=constant.offset, constant=place)
    return Binding(
        dtype=dtype, shape=shape, offset=constant.offset,
        value=constant.name if constant.offset is None else None,
        parameter=constant.parameter, is_transposed=constant.is_transposed,
    )


def _check_no_clash(standins: StandIns, constants: Iterable[Constant]) -> None:
    clashing = [
        f"{c.name} of shape {list(c.array.shape)}, from "
        f"{' or '.join(standins.parameters_with(c.clashing)[:3])}"
        for c in constants if c.clashing
    ]
    if clashing:
        raise StepError(
            "constants that the lowering computed from parameters, so that no other checkpoint "
            "could be bound to them:\n  " + "\n  ".join(clashing[:8]),
            hint=HINT,
        )


def _check_once(shapes: Mapping[str, tuple[int, ...]], constants: Iterable[Constant]) -> None:
    counts = Counter(c.parameter for c in constants if c.parameter is not None)
    wrong = [f"{name}: {counts[name]} times" for name in shapes if counts[name] != 1]
    if wrong:
        raise StepError(
            "parameters that the lowered program does not hold exactly once:\n  "
            + "\n  ".join(wrong[:8]),
            hint=f"coremltools folds a factor or offset after a layer into its weights: {HINT}",
        )
