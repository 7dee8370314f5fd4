"""`sdbuild mil verify`: what it finds."""

import json

import pytest

from sdbuild.mil.ir.proto import messages
from tests.mil.packages import edited, main_block, operation

WEIGHT_BYTES = 36 * 36 * 3 * 3 * 2


def test_a_sound_package_has_no_problems(source, mil, mil_json):
    assert mil("verify", source) == (0, f"{source}: valid\n")
    assert mil_json("verify", source) == {"problems": []}


def set_name(op, name):
    op.outputs[0].name = name


PROBLEMS = {
    "a name given twice": (
        lambda spec: set_name(operation(spec, "relu"), "x"), "'x' is defined before"),
    "a use before the definition": (
        lambda spec: operation(spec, "conv").inputs["x"].arguments[0].MergeFromString(
            messages("MIL").Argument.Binding(name="out").SerializeToString()),
        "uses 'out' before it is defined"),
    "a name that nothing defines": (
        lambda spec: operation(spec, "conv").inputs["x"].arguments[0].MergeFromString(
            messages("MIL").Argument.Binding(name="nowhere").SerializeToString()),
        "uses 'nowhere' which nothing defines"),
    "an output that nothing defines": (
        lambda spec: main_block(spec).outputs.append("nowhere"),
        "outputs: uses 'nowhere' which nothing defines"),
    "results that nobody uses": (
        lambda spec: main_block(spec).outputs.remove("out"), "nothing uses its results"),
    "a feature that the program lacks": (
        lambda spec: spec.description.input.add(name="y"), "the program has no 'y'"),
    "an output that is not described": (
        lambda spec: spec.description.ClearField("output"), "'out' is not described"),
    "a described shape of another size": (
        lambda spec: spec.description.input[0].type.multiArrayType.shape.append(7),
        "x has shape [1, 36, 8, 8, 7], in the program (1, 36, 8, 8)"),
    "a blob between the blobs": (
        lambda spec: setattr(blob_of(spec), "offset", 64 * 3), "expected 0xdeadbeef"),
    "a blob outside the file": (
        lambda spec: setattr(blob_of(spec), "offset", 1 << 40),
        "blob at offset 1099511627776: expected a multiple of 64 inside"),
    "a weight file that is not there": (
        lambda spec: setattr(blob_of(spec), "fileName", "@model_path/weights/other.bin"),
        "other.bin: there is no such weight file"),
    "a weight file elsewhere": (
        lambda spec: setattr(blob_of(spec), "fileName", "@model_path/../../secret.bin"),
        "expected one below @model_path/"),
    "a constant of another size": (
        lambda spec: setattr(const_of(spec).type.tensorType.dimensions[0].constant, "size", 35),
        "bytes, expected"),
    "a constant of another type": (
        lambda spec: setattr(const_of(spec).type.tensorType, "dataType", 11),
        "its blob holds fp16, expected fp32"),
    "no function of that name": (
        lambda spec: spec.description.functions.add(name="other"), "there is no function 'other'"),
}


def const_of(spec):
    """The first constant in the weight file."""
    return next(op.attributes["val"] for op in main_block(spec).operations
                if op.type == "const" and op.attributes["val"].HasField("blobFileValue"))


def blob_of(spec):
    return const_of(spec).blobFileValue


@pytest.mark.parametrize("name", PROBLEMS)
def test_verify_finds(name, source, tmp_path, mil):
    change, expected = PROBLEMS[name]
    broken = edited(source, tmp_path / "broken.mlpackage", change)

    status, out = mil("verify", broken)

    assert status == 1
    assert expected in out
    assert "sound" not in out


def test_a_blob_that_nothing_refers_to_is_a_note_not_an_error(source, tmp_path, mil):
    def forget(spec):
        blob = blob_of(spec)
        last = [op.attributes["val"] for op in main_block(spec).operations
                if op.type == "const" and op.attributes["val"].HasField("blobFileValue")][2]
        blob.offset = last.blobFileValue.offset

    status, out = mil("verify", edited(source, tmp_path / "wasteful.mlpackage", forget))

    assert status == 0
    assert f"note: {tmp_path}" in out
    assert f"nothing refers to its {WEIGHT_BYTES} bytes" in out


@pytest.mark.parametrize("attributes", [
    lambda spec: operation(spec, "conv").attributes, lambda spec: main_block(spec).attributes,
    lambda spec: spec.mlProgram.attributes,
], ids=["operation", "block", "program"])
def test_a_blob_that_only_a_tuple_in_an_attribute_refers_to_is_referred_to(
    attributes, source, tmp_path, mil
):
    def move(spec):
        first, _, third, *_ = [
            op.attributes["val"] for op in main_block(spec).operations
            if op.type == "const" and op.attributes["val"].HasField("blobFileValue")]
        pair = attributes(spec)["extra"]
        pair.type.tupleType.types.add().CopyFrom(first.type)
        pair.immediateValue.tuple.values.add().CopyFrom(first)
        first.blobFileValue.offset = third.blobFileValue.offset

    moved = edited(source, tmp_path / "moved.mlpackage", move)

    assert mil("verify", moved) == (0, f"{moved}: valid\n")


def test_all_problems_are_reported_at_once_as_json_too(source, tmp_path, mil):
    def change(spec):
        main_block(spec).outputs.append("nowhere")
        spec.description.input.add(name="y")

    status, out = mil("verify", edited(source, tmp_path / "b.mlpackage", change), "--json")

    problems = json.loads(out)["problems"]
    assert status == 1
    assert {"where", "problem", "is_error"} == set(problems[0])
    assert len(problems) == 3  # the program's output, and each feature that does not fit


def test_what_macos_adds_beside_the_weights_is_no_weight_file(source, mil):
    weights = source / "Data/com.apple.CoreML/weights"
    (weights / "._weight.bin").write_bytes(b"\0\5\x16\7Mac OS X")
    (source / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")

    assert mil("verify", source) == (0, f"{source}: valid\n")
