"""The format of a calibration: a folder of arrays by the names of parameters, and
`calibration.json`.

`sensitivity/NAME.npy` says how much each element of a parameter counts, in units of their mean;
`feedback/NAME.order.npy` and `feedback/NAME.factors.npy` how errors of its columns are made up for,
and `feedback/NAME.variances.npy` how much of them is left, if it is the weight of a layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.base.parsing import Fields, json_file

LEAST_ELEMENTS = 2048
"""Of a weight that is palettized: it has more."""

_SUMMARY = "calibration.json"
_SENSITIVITY, _FEEDBACK = "sensitivity", "feedback"
_PARTS = ("order", "factors", "variances")
_LARGEST = np.float32(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """Coefficients by which the columns of a weight compensate for the rounding errors of earlier
    ones.

    `order` is that in which the columns of each block are rounded, the most used first. A block's
    `factors[i, j]` say by how much of its error column i lowers column j, both in that order.
    `variances` are the mean squares of the part of each column's input that those of later columns
    do not tell, in units of the mean square of the layer's input.

    Shapes:
        order: (blocks, columns), the column in the block; factors: (blocks, columns, columns),
        above the diagonal; a last block that is shorter is filled with columns that have none;
        variances: (columns of the weight,)
    """

    order: np.ndarray
    factors: np.ndarray
    variances: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A finished calibration. `energy` is the mean sum of squares of what the network gives, and
    `means` are the sensitivities' means, by parameter, in the same unit."""

    folder: Path
    energy: float
    means: Mapping[str, float]

    def sensitivity(self, name: str) -> np.ndarray:
        """Returns how much each element of a parameter counts, in units of their mean.

        Shapes:
            returns: as the parameter, fp16
        """
        return load_array(self.folder / _SENSITIVITY / f"{name}.npy")

    def feedback(self, name: str) -> Feedback | None:
        """Returns the feedback of a layer's weight; None of another parameter."""
        folder = self.folder / _FEEDBACK
        if not (folder / f"{name}.order.npy").is_file():
            return None
        return Feedback(**{part: load_array(folder / f"{name}.{part}.npy") for part in _PARTS})


def write_calibration(
    folder: Path, energy: float, sensitivities: Iterable[tuple[str, np.ndarray]],
    feedbacks: Iterable[tuple[str, Feedback]],
) -> None:
    """Writes a calibration, one parameter in memory at a time, whose sensitivities are overwritten.

    Raises:
        StepError: a sensitivity is not finite.
    """
    for part in (_SENSITIVITY, _FEEDBACK):
        (folder / part).mkdir()
    means = {}
    for name, values in sensitivities:
        mean = float(values.mean(dtype=np.float64))
        if not np.isfinite(mean):
            raise StepError(f"calibration: the gradient of {name} is not finite",
                            hint="the checkpoint produces numbers that are not finite in fp32")
        means[name] = mean
        shares = np.divide(values, np.float32(mean or 1), out=values)
        np.minimum(shares, _LARGEST, out=shares)
        np.save(folder / _SENSITIVITY / f"{name}.npy", shares.astype(np.float16))
    for name, feedback in feedbacks:
        for part in _PARTS:
            np.save(folder / _FEEDBACK / f"{name}.{part}.npy", getattr(feedback, part))
    summary = {"energy": energy, "means": means}
    (folder / _SUMMARY).write_text(json.dumps(summary, indent=0), "utf-8")


def read_calibration(folder: Path) -> Calibration:
    """Returns the calibration in a folder.

    Raises:
        StepError: it is not what `write_calibration` writes.
    """
    found = Fields(json_file(folder / _SUMMARY, StepError), _SUMMARY, StepError)
    means = found.fields("means")
    return Calibration(folder=folder, energy=found.number("energy"),
                       means={name: means.number(name) for name in means.values})


def load_array(path: Path) -> np.ndarray:
    """Returns the array in a file, as a memory map.

    Raises:
        StepError: it cannot be read, or is no array.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StepError(f"{path.name}: {error}") from error
