"""Packages that tests edit, built and read by coremltools."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

IOS15, IOS16, IOS17, IOS18 = (
    ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18,
)


@contextmanager
def quiet() -> Iterator[None]:
    """coremltools leaves temporary folders to the garbage collector, which warns of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


def package(path: Path, body: Callable, *inputs, target=IOS16) -> Path:
    """Writes the package of the program `body(*inputs)`; inputs are (shape, MIL type)."""
    specs = [mb.TensorSpec(shape, dtype=dtype) for shape, dtype in inputs]
    with quiet():
        program = mb.program(input_specs=specs, opset_version=target)(body)
        ct.convert(
            program, convert_to="mlprogram", minimum_deployment_target=target,
            compute_units=ct.ComputeUnit.CPU_ONLY, compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(path))
    return path


def half(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.05).astype(np.float16)


def convolutions(path: Path, target=IOS16, layers: int = 4) -> Path:
    """`layers` convolutions of fp16 weights, of 11,664 elements each, with activations."""

    def body(x):
        for layer in range(layers):
            x = mb.conv(x=x, weight=half(36, 36, 3, 3, seed=layer), bias=half(36, seed=layer),
                        pad_type="same", name=f"conv{layer}")
            x = mb.relu(x=x, name=f"relu{layer}" if layer < layers - 1 else "out")
        return x

    return package(path, body, ((1, 36, 8, 8), types.fp16), target=target)


def changed(source: Path, destination: Path, change: Callable) -> Path:
    """Writes what coremltools' function `change` makes of the package `source`."""
    with quiet():
        change(ct.models.MLModel(str(source), skip_model_load=True)).save(str(destination))
    return destination
