"""Programs without a known compiled form are refused."""

import struct
from dataclasses import replace

import pytest

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.files.package import WEIGHT_FILE, model_file
from sdbuild.mil.ir.program import ListType, NamedType, StateType, TensorType, Value
from sdbuild.mil.ir.proto import messages
from tests.mil.small import VECTOR, array_feature, relu_description, relu_text, small_package


def changed_description(change):
    description = relu_description()
    change(description)
    return description


def with_enumerated_shapes(description):
    description.input[0].type.multiArrayType.enumeratedShapes.shapes.add(shape=[4])


def with_unbounded_shape(description):
    description.input[0].CopyFrom(array_feature("input", ranges=[(1, -1)]))


def with_gray_image(description):
    image = description.input[0].type.imageType
    image.width, image.height, image.colorSpace = 8, 8, 10


def with_integer(description):
    description.input[0].type.int64Type.SetInParent()


def with_training(description):
    description.trainingInput.append(array_feature("target"))


@pytest.mark.parametrize("change", [
    with_enumerated_shapes, with_unbounded_shape, with_gray_image, with_integer, with_training,
])
def test_descriptions_whose_compiled_form_is_unknown_are_refused(change, tmp_path):
    package = small_package(tmp_path / "m.mlpackage", description=changed_description(change))

    with pytest.raises(UnsupportedFormat):
        compile_package(package, tmp_path / "m.mlmodelc")

    assert not (tmp_path / "m.mlmodelc").exists()


def with_input(kind):
    def change(program):
        function = program.main
        inputs = (*function.inputs, NamedType("extra", kind))
        return replace(program, functions={"main": replace(function, inputs=inputs)})

    return change


SPARSE_OF_IOS18 = (
    'constexpr_sparse_to_dense(mask = tensor<uint1, [4]>(BLOBFILE(path = '
    'string("@model_path/weights/weight.bin"), offset = uint64(64))), '
    "nonzero_data = tensor<fp32, [1]>([0x1p+0]))"
)


@pytest.mark.parametrize("arguments", [
    {"version": 10},
    {"change": with_input(StateType(ListType(TensorType("fp16", (2,)), 2)))},
    {"change": with_input(ListType(TensorType("fp16", (2,)), 2))},
    {"text": relu_text(body="made_up(x = input)")},
    {"text": relu_text(opset="ios18", body=SPARSE_OF_IOS18), "version": 9},
], ids=["spec 10", "state of a list", "list", "operation", "sparse weights of iOS 18"])
def test_programs_whose_compiled_form_is_unknown_are_refused(arguments, tmp_path):
    description = relu_description()
    if "change" in arguments:
        description.input.add(name="extra")
    package = small_package(tmp_path / "m.mlpackage", description=description, **arguments)
    weights = model_file(package).parent / "weights" / "weight.bin"
    weights.parent.mkdir()
    with BlobWriter(weights) as writer:
        writer.write("uint1", b"\1", padding_bits=4)

    with pytest.raises(UnsupportedFormat):
        compile_package(package, tmp_path / "m.mlmodelc")


def test_a_refusal_says_what_and_why(tmp_path):
    package = small_package(
        tmp_path / "m.mlpackage", description=changed_description(with_enumerated_shapes)
    )

    with pytest.raises(UnsupportedFormat) as caught:
        compile_package(package, tmp_path / "m.mlmodelc")

    assert str(caught.value) == (
        "feature input: shapes are enumerated, and compiled models key each by a hash that is not "
        "known\n\nhint: Use ranges of sizes, or a fixed shape."
    )


def test_functions_described_out_of_order_are_refused(tmp_path):
    description = messages("Model").ModelDescription(defaultFunctionName="b")
    function = f"({VECTOR} x) {{ {VECTOR} y = relu(x = x); }} -> (y);"
    for name in ("b", "a"):
        described = description.functions.add(name=name)
        described.input.append(array_feature("x"))
        described.output.append(array_feature("y"))
    text = f"program(1.0) {{ func a<ios18>{function} func b<ios18>{function} }}"
    package = small_package(tmp_path / "m.mlpackage", text, description=description, version=9)

    with pytest.raises(UnsupportedFormat):
        compile_package(package, tmp_path / "m.mlmodelc")


def test_a_name_that_begins_with_a_digit_is_refused(tmp_path):
    with pytest.raises(UnsupportedFormat):
        compile_package(small_package(tmp_path / "m.mlpackage"), tmp_path / "m", name="3d")


@pytest.mark.parametrize("file", [
    "@model_path/../secret.bin", "/etc/passwd", "@model_path", "weights/weight.bin", WEIGHT_FILE,
])
def test_weight_files_outside_or_missing_are_refused(file, tmp_path):
    text = (
        f"relu(x = tensor<fp32, [4]>(BLOBFILE(path = string(\"{file}\"), offset = uint64(64))))"
    )
    (tmp_path / "secret.bin").write_bytes(struct.pack("<II56x", 0, 2))
    package = small_package(tmp_path / "m.mlpackage", text=relu_text(body=text))

    with pytest.raises(InvalidProgram):
        compile_package(package, tmp_path / "m.mlmodelc")

    assert not (tmp_path / "m.mlmodelc").exists()


def test_a_build_info_that_is_not_of_strings_is_refused(tmp_path):
    value = Value(TensorType("int32"), bytes(4))
    package = small_package(
        tmp_path / "m.mlpackage", change=lambda p: replace(p, attributes={"buildInfo": value})
    )

    with pytest.raises(InvalidProgram):
        compile_package(package, tmp_path / "m.mlmodelc")


@pytest.mark.parametrize("change", [
    {"text": relu_text(body="relu(x = nowhere)")},
    {"text": relu_text().replace("main", "other")},
    {"description": messages("Model").ModelDescription(
        functions=[messages("Model").FunctionDescription(name="main")], defaultFunctionName="x"
    )},
])
def test_programs_that_contradict_themselves_are_refused(change, tmp_path):
    package = small_package(tmp_path / "m.mlpackage", **change)

    with pytest.raises(InvalidProgram):
        compile_package(package, tmp_path / "m.mlmodelc")
