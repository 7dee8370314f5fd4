"""Programs of one operation, for tests of the executor."""

from pathlib import Path

import numpy as np

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.arrays import pack_bits
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import (
    Block,
    Function,
    NamedType,
    Operation,
    Program,
    TensorType,
    Value,
    string,
)
from sdbuild.mil.ir.proto import messages

MIL_NAMES = {
    "bool": "bool", "float16": "fp16", "float32": "fp32", "int8": "int8", "uint8": "uint8",
    "int16": "int16", "uint16": "uint16", "int32": "int32",
}
F16 = np.float16
F32 = np.float32


def floats(*shape, seed=0, dtype=F32):
    """Normal random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def type_of(array):
    """The MIL type of an array."""
    return TensorType(MIL_NAMES[array.dtype.name], array.shape)


def const(given, dtype=None):
    """A constant: from an array, a number, a string, or a list; packed if `dtype` is sub-byte."""
    if isinstance(given, str):
        return string(given)
    array = np.asarray(given)
    if array.dtype == np.float64:
        array = array.astype(F32)
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    if dtype is None:
        return Value(type_of(array), array.tobytes())
    return Value(TensorType(dtype, array.shape), pack_bits(array, DTYPES[dtype].bits))


def model_of(operations, inputs, outputs):
    """A model of the program with these operations."""
    block = Block(operations=tuple(operations), outputs=tuple(outputs))
    function = Function(inputs=tuple(inputs), opset="CoreML8", blocks={"CoreML8": block})
    return Model(specification_version=9, description=messages("Model").ModelDescription(),
                 root=Path(), source=Path("test"), program=Program(functions={"main": function}))


def operation(kind, outputs, attributes=None, blocks=(), **arguments):
    """An operation; arguments are names, constants, or lists of them; None is left out."""
    given = {k: v if isinstance(v, list | tuple) else (v,) for k, v in arguments.items()}
    return Operation(
        type=kind, outputs=tuple(NamedType(n, t) for n, t in outputs.items()), blocks=blocks,
        inputs={k: tuple(v) for k, v in given.items() if v != (None,)},
        attributes=attributes or {},
    )


def run(kind, like, as_attributes=False, **arguments):
    """The outputs of one operation.

    Arrays become inputs of the program, lists of arrays several inputs, all else constants.
    `like` are arrays with the types and shapes of the outputs.
    """
    fed, bound = {}, {}
    for name, argument in arguments.items():
        arrays = argument if isinstance(argument, list) else [argument]
        if arrays and all(isinstance(a, np.ndarray) for a in arrays):
            names = [f"{name}{i}" for i in range(len(arrays))]
            fed.update(zip(names, arrays, strict=True))
            bound[name] = names
        elif argument is not None:
            bound[name] = argument if isinstance(argument, Value) else const(argument)
    outputs = {f"out{i}": type_of(array) for i, array in enumerate(like)}
    attributes = bound if as_attributes else {}
    made = operation(kind, outputs, attributes, **({} if as_attributes else bound))
    inputs = [NamedType(name, type_of(array)) for name, array in fed.items()]
    found = Executor(model_of([made], inputs, outputs)).predict(fed)
    return [found[name] for name in outputs]


def check(kind, *expected, rtol=2e-5, atol=1e-6, **arguments):
    """Runs one operation and compares all outputs; exactly, unless they are floats."""
    expected = [np.asarray(e) for e in expected]
    for found, wanted in zip(run(kind, expected, **arguments), expected, strict=True):
        assert found.dtype == wanted.dtype
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(found, wanted)
