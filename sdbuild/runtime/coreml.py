"""The predictor for a Mac: Core ML through coremltools."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdbuild.errors import ToolMissing
from sdbuild.mil.read import read_model

_FLOAT16 = 65552
"""`ArrayFeatureType.FLOAT16` in `FeatureTypes.proto`."""


class CoreML:
    """One compiled model in Core ML, on the compute units that its attention is laid out for.

    Source:
        The pairing that apps apply: original to CPU and GPU, the split layouts to CPU and Neural
        Engine; see `docs/formats/bundle.md`.
    """

    def __init__(self, path: Path, attention: str) -> None:
        import coremltools as ct

        model = read_model(path)
        self.shapes = model.input_shapes
        self._types = {
            name: np.float16 if feature.type.multiArrayType.dataType == _FLOAT16 else np.float32
            for name, feature in model.inputs.items()
        }
        units = ct.ComputeUnit.CPU_AND_GPU if attention == "original" else ct.ComputeUnit.CPU_AND_NE
        self._model = ct.models.CompiledMLModel(str(path), compute_units=units)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for some inputs, cast to the types that the model declares."""
        return self._model.predict({k: v.astype(self._types[k]) for k, v in inputs.items()})


def load(path: Path, attention: str, weight_bytes: int | None) -> CoreML:
    """The model at `path`; what it keeps of weights is Core ML's affair.

    Raises:
        ToolMissing: this is no Mac.
    """
    if sys.platform != "darwin":
        raise ToolMissing(
            "predictor=coreml: Core ML is only on a Mac", hint="take predictor=portable"
        )
    return CoreML(path, attention)
