"""The predictor for any machine: our executor of ML Programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import input_shapes
from sdbuild.mil.files.read import read_model


class Portable:
    """One model on the executor, or one function of it."""

    def __init__(self, path: Path, weight_bytes: int | None, function: str | None) -> None:
        model = read_model(path)
        self.shapes = input_shapes(model.described(function))
        self._executor = Executor(model, function=function, weight_bytes=weight_bytes)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs."""
        return self._executor.predict(inputs)


def load(
    path: Path, attention: str, weight_bytes: int | None, function: str | None
) -> Portable:
    """Returns the model at `path`, which keeps so many bytes of decoded weights."""
    return Portable(path, weight_bytes, function)
