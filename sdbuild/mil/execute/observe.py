"""Observations of a run: where fp16 loses the most, and what each kind of operation costs.

Both hang on the `observe` hook of the executor. The first NaN or infinity: `first_nonfinite` in
`execute.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sdbuild.mil.execute.executable import Observation, tensors
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import Model

_ROUNDED_DB = 10 * math.log10(7 / 3 * 12 * 2**20)
"""The signal to noise ratio of numbers that were rounded to fp16 once: 74.7 dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionLoss:
    """The distance of a value from that of a run in fp32.

    `added_db` is how many dB were lost by the operation itself: its least exact argument minus
    its result. Infinite where a value is exact.

    Units:
        snr_db: the mean square of the fp32 value over that of the difference.
    """

    name: str
    type: str
    output: str
    snr_db: float
    max_error: float
    added_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCost:
    """The cost of all operations of one type in a run.

    Units:
        bytes: read and written, as the executor carries them: four for an element of fp16.
    """

    type: str
    count: int
    seconds: float
    bytes: int


def losses(
    model: Model, inputs: Mapping[str, np.ndarray], *, function: str | None = None
) -> list[PrecisionLoss]:
    """Returns the loss of every floating-point value, in the order of the program.

    Both runs go side by side, so that only values that are still needed are in memory twice.
    Shapes:
        inputs: as the model declares them.
    """
    declared = Executor(model, function=function).trace(inputs)
    exact = Executor(model, function=function, precision="fp32").trace(inputs)
    snr_db: dict[str, float] = {}
    found = []
    for rounded, full in zip(declared, exact, strict=True):
        given = min((snr_db.get(name, math.inf) for name in rounded.operation.references()),
                    default=math.inf)
        for name, value in rounded.outputs.items():
            if value.is_floating_point():
                snr_db[name], error = _difference(value.numpy(), full.outputs[name].numpy())
                found.append(PrecisionLoss(
                    name=rounded.operation.name, type=rounded.operation.type, output=name,
                    snr_db=snr_db[name], max_error=error, added_db=_lost(given, snr_db[name]),
                ))
    return found


def worst(found: Iterable[PrecisionLoss], count: int) -> list[PrecisionLoss]:
    """Returns the operations that lost the most themselves, the worst first."""
    return sorted(found, key=lambda loss: loss.added_db, reverse=True)[:count]


def profile(
    model: Model, inputs: Mapping[str, np.ndarray], *, function: str | None = None
) -> list[OperationCost]:
    """Returns what each type of operation costs in one run, the slowest first; nothing runs in
    slices.

    Shapes:
        inputs: as the model declares them.
    """
    found: dict[str, OperationCost] = {}
    for seen in Executor(model, function=function).trace(inputs):
        kind = seen.operation.type
        before = found.get(kind, OperationCost(type=kind, count=0, seconds=0, bytes=0))
        found[kind] = OperationCost(
            type=kind, count=before.count + 1, bytes=before.bytes + _bytes(seen),
            seconds=before.seconds + seen.seconds)
    return sorted(found.values(), key=lambda cost: cost.seconds, reverse=True)


def _bytes(seen: Observation) -> int:
    every = (*tensors(seen.inputs), *tensors(seen.outputs))
    return sum(tensor.numel() * tensor.element_size() for tensor in every)


def _difference(found: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Returns the signal to noise ratio in dB, and the largest error; NaN where something is not
    finite.

    Shapes:
        found, exact: the same
    """
    if found.size == 0:
        return math.inf, 0.0
    error = np.abs(found.astype(np.float64) - exact)
    if not np.isfinite(error).all():
        return math.nan, math.nan
    noise, signal = float(np.mean(error**2)), float(np.mean(exact.astype(np.float64) ** 2))
    if noise == 0:
        return math.inf, 0.0
    snr_db = 10 * math.log10(signal / noise) if signal else -math.inf
    return snr_db, float(error.max())


def _lost(given_db: float, made_db: float) -> float:
    """Returns the dB between an argument and a result. What was as good as exact before loses from
    what fp16 itself leaves, so that the first rounding of a value counts for nothing.

    Source:
        Numbers that are spread evenly over an octave, of unit 2**-10 in [1, 2): their mean square
        is 7/3, that of the rounding error 2**-20 / 12.
    """
    if math.isinf(made_db) and made_db > 0:
        return 0.0
    return min(given_db, _ROUNDED_DB) - made_db
