"""Packages that tests edit, built and read by coremltools."""

import gc
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.package import model_file, read_package
from sdbuild.mil.ir.proto import Message, messages, serialize
from sdbuild.mil.ir.traverse import walk

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


def package(path: Path, body: Callable, *inputs, target=IOS16, states=()) -> Path:
    """Writes the package of `body(*inputs, *states)`; these are (shape, MIL type)."""
    specs = [mb.TensorSpec(shape, dtype=dtype) for shape, dtype in inputs]
    specs += [mb.StateTensorSpec(shape, dtype=dtype) for shape, dtype in states]
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
    shutil.copytree(_converted(target, layers), path)
    return path


@cache
def _converted(target, layers: int) -> Path:
    """The package of `convolutions`, converted once."""

    def body(x):
        for layer in range(layers):
            x = mb.conv(x=x, weight=half(36, 36, 3, 3, seed=layer), bias=half(36, seed=layer),
                        pad_type="same", name=f"conv{layer}")
            x = mb.relu(x=x, name=f"relu{layer}" if layer < layers - 1 else "out")
        return x

    path = Path(tempfile.mkdtemp()) / "convolutions.mlpackage"
    return package(path, body, ((1, 36, 8, 8), types.fp16), target=target)


def changed(source: Path, destination: Path, change: Callable) -> Path:
    """Writes what coremltools' function `change` makes of the package `source`."""
    with quiet():
        change(ct.models.MLModel(str(source), skip_model_load=True)).save(str(destination))
    return destination


def weights(path: Path) -> dict[str, np.ndarray]:
    """Every constant by the name that it had before it was packed."""
    model = read_package(path)
    return {
        re.sub("(_palettized(_pcs)?|_quantized|_sparsified)$", "", op.outputs[0].name):
            to_array(model, op.attributes["val"])
        for op in walk(model.program.main.block) if op.type == "const"
    }


@lru_cache(maxsize=4)
def dense(path: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """`weights` after coremltools' own decompression; read only, as they are kept."""
    return weights(changed(path, tmp_path / f"dense_{path.name}", cto.decompress_weights))


def structure(path: Path) -> list[tuple]:
    """The operations without the data of their constants."""
    found = []
    for op in read_package(path).program.main.block.operations:
        arguments = {
            key: tuple(b if isinstance(b, str) else b.type for b in bindings)
            for key, bindings in op.inputs.items()
        }
        kinds = {key: value.type for key, value in op.attributes.items()}
        found.append((op.type, op.name, arguments, op.outputs, kinds))
    return found


def squared_error(source: Path, path: Path, tmp_path: Path) -> float:
    """Returns the squared error of the weights in `path`, as coremltools reads them."""
    exact, found = weights(source), dense(path, tmp_path)
    return sum(float(((exact[k].astype(float) - found[k].astype(float)) ** 2).sum())
               for k in exact if exact[k].dtype.kind == "f")


def spec_of(package: Path) -> Message:
    """The message of `package`."""
    return messages("Model").Model.FromString(model_file(package).read_bytes())


def edited(source: Path, path: Path, change: Callable) -> Path:
    """A copy of the package `source` whose message `change` has changed."""
    shutil.copytree(source, path)
    return edited_in_place(path, change)


def edited_in_place(package: Path, change: Callable) -> Path:
    """`package`, after `change` has changed its message."""
    spec = spec_of(package)
    change(spec)
    model_file(package).write_bytes(serialize(spec))
    return package


def main_block(spec):
    """The block of the function `main` in a model's message."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block


def operation(spec, kind):
    """The first operation of a type in a model's message."""
    return next(op for op in main_block(spec).operations if op.type == kind)
