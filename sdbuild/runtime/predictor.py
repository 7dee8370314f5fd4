"""Predictors, which run one compiled model: Core ML on a Mac, our executor anywhere.

A predictor takes float32 arrays by name, as hosts send them, and gives arrays by name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sdbuild.base.errors import BundleError


class Predictor(Protocol):
    """Runs one model. `shapes` are those of its inputs, by name.

    Shapes:
        of inputs and outputs: as the description of the model declares them.
    """

    shapes: Mapping[str, tuple[int, ...]]

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs."""
        ...


class Chain:
    """Models that run in a row: each sees the first inputs and what those before it gave."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors = predictors
        self.shapes = predictors[0].shapes

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of the last model.

        Raises:
            BundleError: a model takes an input that is neither given nor made before it.
        """
        values = dict(inputs)
        outputs: dict[str, np.ndarray] = {}
        for predictor in self.predictors:
            lost = sorted(predictor.shapes.keys() - values.keys())
            if lost:
                raise BundleError(f"a model takes {', '.join(lost)}; "
                                  f"what there is: {', '.join(sorted(values))}")
            outputs = predictor.predict({name: values[name] for name in predictor.shapes})
            values |= outputs
        return outputs


def chosen(predictor: str) -> str:
    """Returns the predictor that a name stands for: `auto` is Core ML on a Mac."""
    if predictor != "auto":
        return predictor
    return "coreml" if sys.platform == "darwin" else "portable"


def load(
    paths: Sequence[Path], predictor: str, attention: str, weight_bytes: int | None = None,
    function: str | None = None,
) -> Chain:
    """Returns the models at `paths` in a row, one function of each, the default one if None; `auto`
    is Core ML on a Mac.

    Raises:
        ToolMissing: Core ML is asked for where there is none.
        MILError: a model cannot be run.
    Units:
        weight_bytes: of decoded weights that the executor keeps, shared equally by the models;
            all of them if None. Core ML does as it likes.
    """
    module = importlib.import_module(f"sdbuild.runtime.{chosen(predictor)}")
    share = None if weight_bytes is None else weight_bytes // len(paths)
    return Chain([module.load(path, attention, share, function) for path in paths])
