"""The format of a rating: `ratings.json`, with the elements of each parameter and the cost of each
width, and `tables/NAME.npy`, the tables of all widths, one after another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.base.errors import StepError
from sdbuild.base.parsing import Fields, json_file
from sdbuild.base.progress import each
from sdbuild.mil.compress.compiled import kernels
from sdbuild.mil.compress.compress import in_order
from sdbuild.mil.compress.ratings import Rating, compensated_costs, ratings
from sdbuild.mil.ir.dtype import PALETTE_BITS
from sdbuild.quality.allocate import Weight
from sdbuild.quality.calibration import Calibration, Feedback, load_array
from sdbuild.safetensors.decode import to_array
from sdbuild.safetensors.tensors import Tensor

_RATINGS, _TABLES = "ratings.json", "tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """The parameters of a network, by name, with the cost of each width; and where their tables
    are. `energy` is the mean sum of squares of what the network gives, in the costs' unit."""

    folder: Path
    energy: float
    weights: Mapping[str, Weight]

    def table(self, name: str, bits: int) -> np.ndarray:
        """Returns the table of a width.

        Shapes:
            returns: (2**bits,), ascending, fp16
        Raises:
            StepError: the file is not what `write_ratings` writes.
        """
        found = load_array(self.folder / _TABLES / f"{name}.npy")
        start = sum(1 << width for width in PALETTE_BITS if width < bits)
        return found[start:start + (1 << bits)]


def write_ratings(
    folder: Path, tensors: Mapping[str, Tensor], calibration: Calibration, workers: int = 1
) -> int:
    """Writes the ratings of all parameters that were calibrated; returns how many. The bytes do not
    depend on `workers` (threads).

    Raises:
        MILError: a parameter holds NaN or infinity.
    """
    (folder / _TABLES).mkdir()
    kernels(len(PALETTE_BITS) * sum(tensors[name].size_bytes for name in calibration.means))

    def rate(name: str) -> tuple[str, dict[str, Any]]:
        array = to_array(tensors[name]).astype(np.float16)
        sensitivity = np.asarray(calibration.sensitivity(name))
        found = ratings(array, sensitivity, PALETTE_BITS)
        costs = _costs(found, array, sensitivity, calibration.feedback(name))
        np.save(folder / _TABLES / f"{name}.npy", np.concatenate([r.table for r in found]))
        return name, {"elements": array.size, "costs": {
            str(rating.bits): cost * calibration.means[name]
            for rating, cost in zip(found, costs, strict=True)}}

    rated = dict(each(in_order(rate, calibration.means, workers), "tensors",
                      len(calibration.means)))
    summary = {"energy": calibration.energy, "weights": rated}
    (folder / _RATINGS).write_text(json.dumps(summary, indent=0), "utf-8")
    return len(rated)


def _costs(
    found: Sequence[Rating], array: np.ndarray, sensitivity: np.ndarray, feedback: Feedback | None
) -> list[float]:
    """Returns what each table costs once columns have made up for each other's errors."""
    if feedback is None:
        return [rating.cost for rating in found]
    return compensated_costs(array, sensitivity, [rating.table for rating in found],
                             feedback.order, feedback.factors, feedback.variances)


def read_ratings(folder: Path) -> Ratings:
    """Returns the ratings in a folder.

    Raises:
        StepError: they are not what `write_ratings` writes.
    """
    found = Fields(json_file(folder / _RATINGS, StepError), _RATINGS, StepError)
    weights = found.fields("weights")
    return Ratings(folder=folder, energy=found.number("energy"),
                   weights={name: _weight(weights.fields(name)) for name in weights.values})


def _weight(fields: Fields) -> Weight:
    costs = fields.fields("costs")
    return Weight(elements=fields.integer("elements", low=1),
                  costs={bits: costs.number(str(bits), low=0) for bits in PALETTE_BITS})
