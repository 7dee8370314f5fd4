"""Packages of many large weights, written without coremltools."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.files.package import write_package
from sdbuild.mil.text.parse import parse_program
from tests.mil.small import relu_description

_BLOB = (
    'BLOBFILE(path = tensor<string, []>("@model_path/weights/weight.bin"), '
    'offset = tensor<uint64, []>({}))'
)
_NAMES = {np.dtype(np.float16): "fp16", np.dtype(np.float32): "fp32"}


def large_package(path: Path, arrays: Iterable[np.ndarray], opset: str = "ios16") -> Path:
    """Writes a package with a constant for each array, w0, w1, …; they come one at a time."""
    weights = path.with_suffix(".bin")
    lines = []
    with BlobWriter(weights) as writer:
        for number, array in enumerate(arrays):
            dtype = _NAMES[array.dtype]
            kind = f"tensor<{dtype}, [{', '.join(map(str, array.shape))}]>"
            value = _BLOB.format(writer.write(dtype, array.tobytes()))
            lines += [f"{kind} w{number} = const()[val = {kind}({value})];",
                      f"{kind} used{number} = relu(x = w{number});"]
    program = parse_program(
        f"program(1.0) {{ func main<{opset}>(tensor<fp32, [4]> input) {{ {' '.join(lines)} "
        "tensor<fp32, [4]> output = relu(x = input); } -> (output); }")
    write_package(path, specification_version=7 if opset == "ios16" else 9,
                  description=relu_description(), program=program, weights=weights)
    return path
