"""The predictor for a Mac: Core ML through coremltools."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sdbuild.base.errors import BundleError, SDBuildError, ToolMissing
from sdbuild.mil.files.package import input_shapes
from sdbuild.mil.files.read import read_model

_FLOAT16 = 65552
"""`ArrayFeatureType.FLOAT16` in `FeatureTypes.proto`."""


class CoreML:
    """One compiled model in Core ML, or one function of it, on the compute units that its attention
    is laid out for.

    Source:
        The pairing that apps apply: original to CPU and GPU, the split layouts to CPU and Neural
        Engine; see `docs/formats/bundle.md`.
    """

    def __init__(self, path: Path, attention: str, function: str | None) -> None:
        import coremltools as ct

        features = read_model(path).described(function)
        self.shapes = input_shapes(features)
        self._types = {
            feature.name:
                np.float16 if feature.type.multiArrayType.dataType == _FLOAT16 else np.float32
            for feature in features.input
        }
        units = ct.ComputeUnit.CPU_AND_GPU if attention == "original" else ct.ComputeUnit.CPU_AND_NE
        self._name = path.stem
        with translated(f"{self._name}: Core ML cannot load it on {units.name}"):
            self._model = ct.models.CompiledMLModel(
                str(path), compute_units=units, function_name=function)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs, cast to the types that the model declares."""
        values = {k: v.astype(self._types[k]) for k, v in inputs.items()}
        with translated(f"{self._name}: Core ML cannot run it"):
            return self._model.predict(values)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises what Core ML raises as an error of ours; coremltools has no classes for it.

    Raises:
        BundleError: Core ML or the Neural Engine's compiler failed.
    """
    try:
        yield
    except SDBuildError:
        raise
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise BundleError(f"{what}: {said}",
                          hint="predictor=portable runs it without Core ML") from error


def load(
    path: Path, attention: str, weight_bytes: int | None, function: str | None
) -> CoreML:
    """Returns the model at `path`; what it keeps of weights is Core ML's affair.

    Raises:
        ToolMissing: this is no Mac.
    """
    if sys.platform != "darwin":
        raise ToolMissing(
            "predictor=coreml: Core ML is only on a Mac", hint="use predictor=portable"
        )
    return CoreML(path, attention, function)
