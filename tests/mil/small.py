"""Small packages of MIL text, for tests that need no coremltools."""

from pathlib import Path

from sdbuild.mil.files.package import write_package
from sdbuild.mil.ir.proto import messages
from sdbuild.mil.text.parse import parse_program

FLOAT32 = 65568
RELU = "relu(x = input)"
VECTOR = "tensor<fp32, [4]>"


def relu_text(kind=VECTOR, opset="ios17", body=RELU):
    return (
        f"program(1.0) {{ func main<{opset}>({kind} input) {{"
        f"{kind} output = {body}; }} -> (output); }}"
    )


def array_feature(name, shape=(4,), dtype=FLOAT32, ranges=()):
    feature = messages("Model").FeatureDescription(name=name)
    array = feature.type.multiArrayType
    array.dataType = dtype
    array.shape.extend(shape)
    for low, high in ranges:
        array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    return feature


def relu_description():
    description = messages("Model").ModelDescription()
    description.input.append(array_feature("input"))
    description.output.append(array_feature("output"))
    return description


def small_package(
    path: Path, text: str = "", *, description=None, version=8, change=lambda program: program,
) -> Path:
    """Writes the package of a program in MIL text, of one relu if there is none."""
    write_package(
        path, specification_version=version,
        description=relu_description() if description is None else description,
        program=change(parse_program(text or relu_text())), weights=None,
    )
    return path
