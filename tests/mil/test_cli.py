"""`python -m sdbuild mil …`: what it prints, and how it ends."""

import json
import shutil
import subprocess
import sys

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from packages import IOS17, convolutions, half, package, quiet

from sdbuild.cli import main
from sdbuild.mil.package import model_file, read_package
from sdbuild.mil.proto import messages, serialize

WEIGHT_BYTES = 36 * 36 * 3 * 3 * 2
BIAS_BYTES = 36 * 2
COMMANDS = ("show", "ops", "weights", "verify", "run")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Read only: tests edit copies."""
    return convolutions(tmp_path_factory.mktemp("cli") / "source.mlpackage", layers=2)


@pytest.fixture
def mil(capsys):
    """Runs a command; gives its exit status and what it printed."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["mil", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out or err

    return run


@pytest.fixture
def mil_json(mil):
    """Runs a command with `--json`; gives what it printed, decoded."""

    def run(*arguments):
        status, out = mil(*arguments, "--json")
        assert status == 0, out
        return json.loads(out)

    return run


def edited(source, path, change):
    """A copy of a package with its message changed."""
    shutil.copytree(source, path)
    file = model_file(path)
    spec = messages("Model").Model.FromString(file.read_bytes())
    change(spec)
    file.write_bytes(serialize(spec))
    return path


def main_block(spec):
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block


def operation(spec, kind):
    return next(op for op in main_block(spec).operations if op.type == kind)


# looking


def test_show_tells_features_functions_and_weights(source, mil):
    status, out = mil("show", source)

    assert status == 0
    assert f"{source}: ML Program, specification version 7\n" in out
    assert "input   x     float16 [1, 36, 8, 8]" in out
    assert "output  out   float16 [1, 36, 8, 8]" in out
    assert "2 conv, 2 relu" in out
    assert "weights: 4 blobs, 46.8 KB" in out  # 2 × (23,328 + 72) bytes


def test_show_as_text_is_mil_text(source, mil):
    status, out = mil("show", source, "--text")

    assert status == 0
    assert out.startswith("program(1.0)\n[buildInfo = dict")
    assert "tensor<fp16, [1, 36, 8, 8]> x" in out


def test_show_as_json_has_the_documented_keys(source, mil_json):
    (shown,) = mil_json("show", source)["models"]

    assert list(shown) == [
        "path", "specification_version", "description", "author", "license", "version",
        "user_defined", "features", "functions", "weights",
    ]
    assert {"blobs": 4, "bytes": 2 * (WEIGHT_BYTES + BIAS_BYTES)} == shown["weights"]
    (function,) = shown["functions"]
    assert function["opset"] == "CoreML6"
    assert function["operations"]["conv"] == 2


def test_ops_says_which_operations_the_executor_lacks(source, tmp_path, mil_json):
    def rename(spec):
        operation(spec, "relu").type = "no_such_operation"

    changed = edited(source, tmp_path / "changed.mlpackage", rename)

    rows = {row["operation"]: row for row in mil_json("ops", changed)["operations"]}

    assert rows["conv"] == {"operation": "conv", "count": 2, "supported": True}
    assert rows["no_such_operation"] == {
        "operation": "no_such_operation", "count": 1, "supported": False}


def test_weights_lists_each_blob_with_its_user(source, mil_json):
    rows = mil_json("weights", source)["weights"]

    assert sorted(row["size_bytes"] for row in rows) == sorted([WEIGHT_BYTES, BIAS_BYTES] * 2)
    assert {row["operation"] for row in rows} == {"conv"}
    assert {(row["dtype"], row["bits"]) for row in rows} == {("fp16", 16)}
    assert [36, 36, 3, 3] in [row["shape"] for row in rows]
    reader = read_package(source).reader("@model_path/weights/weight.bin")
    assert [r.offset for r in reader.records()] == [row["offset"] for row in rows]


def test_palettes_are_counted_by_the_bits_of_their_indices(source, tmp_path, mil, mil_json):
    mil("palettize", source, tmp_path / "p.mlpackage", "--bits", 4)

    rows = mil_json("weights", tmp_path / "p.mlpackage")["weights"]

    indices = [row for row in rows if row["argument"] == "indices"]
    assert [(row["bits"], row["size_bytes"]) for row in indices] == [(4, WEIGHT_BYTES // 4)] * 2


# verifying


def test_a_sound_package_has_no_problems(source, mil, mil_json):
    assert mil("verify", source) == (0, f"{source}: sound\n")
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


def test_all_problems_are_told_at_once_as_json_too(source, tmp_path, mil):
    def change(spec):
        main_block(spec).outputs.append("nowhere")
        spec.description.input.add(name="y")

    status, out = mil("verify", edited(source, tmp_path / "b.mlpackage", change), "--json")

    problems = json.loads(out)["problems"]
    assert status == 1
    assert {"where", "problem", "is_error"} == set(problems[0])
    assert len(problems) == 3  # the program's output, and each feature that does not fit


# comparing


def test_a_model_does_not_differ_from_itself(source, mil):
    assert mil("diff", source, source) == (0, "")


def test_diff_tells_metadata_program_and_weights_apart_by_name(source, tmp_path, mil):
    def change(spec):
        spec.description.metadata.author = "somebody"
        operation(spec, "relu").type = "sigmoid"

    other = edited(source, tmp_path / "other.mlpackage", change)
    file = other / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    data = bytearray(file.read_bytes())
    data[200] ^= 1  # in the data of the first blob
    file.write_bytes(data)

    status, out = mil("diff", source, other, "--json")

    found = {(d["part"], d["name"]): d for d in json.loads(out)["differences"]}
    assert status == 1
    assert len(found) == 3
    assert found["metadata", "author"]["after"] == "somebody"
    assert found["metadata", "author"]["before"] == ""
    (program,) = [d for (part, _), d in found.items() if part == "program"]
    assert program["before"].startswith("relu(") and program["after"].startswith("sigmoid(")
    (weights,) = [name for part, name in found if part == "weights"]
    first = read_package(source).program.main.block.operations[0]
    assert weights == f"main: {first.name}.val"


def test_where_blobs_lie_is_no_difference(source, tmp_path, mil):
    with quiet():
        ct.models.MLModel(str(source), skip_model_load=True).save(str(tmp_path / "c.mlpackage"))

    assert mil("diff", source, tmp_path / "c.mlpackage") == (0, "")


# running


def test_run_is_seeded_and_saves_its_outputs(source, tmp_path, mil_json):
    first = mil_json("run", source, "--out", tmp_path / "first")
    mil_json("run", source, "--out", tmp_path / "again")
    other = mil_json("run", source, "--seed", 1)

    out = np.load(tmp_path / "first" / "out.npy")
    (row,) = first["outputs"]
    assert row["shape"] == [1, 36, 8, 8]
    assert (row["min"], row["max"], row["nan"]) == (float(out.min()), float(out.max()), 0)
    assert out.tobytes() == np.load(tmp_path / "again" / "out.npy").tobytes()
    assert first != other


def test_run_takes_inputs_from_files(source, tmp_path, mil_json):
    np.save(tmp_path / "x.npy", np.zeros((1, 36, 8, 8), np.float32))

    (row,) = mil_json("run", source, "--input", f"x={tmp_path / 'x.npy'}")["outputs"]

    bias = half(36, seed=1).astype(np.float64)
    assert row["max"] >= bias.max() > 0


def test_run_names_the_operation_that_made_infinity(tmp_path, mil):
    def body(x):
        return mb.exp(x=mb.mul(x=x, y=np.float32(1e30), name="large"), name="out")

    path = package(tmp_path / "m.mlpackage", body, ((4,), types.fp32), target=IOS17)
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))

    status, out = mil("run", path, "--input", f"x={tmp_path / 'x.npy'}")

    assert status == 0
    assert "exp out: 0 NaN and 4 infinite in out" in out


def test_the_chunks_of_a_pipeline_run_in_a_row(source, tmp_path, mil, mil_json):
    status, _ = mil("chunk", source, tmp_path / "one.mlpackage", "--one-package", 2)
    assert status == 0

    mil_json("run", source, "--out", tmp_path / "whole")
    rows = mil_json("run", tmp_path / "one.mlpackage", "--out", tmp_path / "row")["outputs"]

    assert "out" in {row["name"] for row in rows}
    assert (np.load(tmp_path / "whole" / "out.npy").tobytes()
            == np.load(tmp_path / "row" / "out.npy").tobytes())


# editing


def test_edits_write_what_the_library_does(source, tmp_path, mil, mil_json):
    tensors = mil_json("palettize", source, tmp_path / "4.mlpackage", "--bits", 4)["tensors"]
    mil_json("palettize", source, tmp_path / "m.mlpackage", "--bits", 4,
             "--mixed", "conv0*=6", "--skip", "conv1*")
    mil_json("quantize", source, tmp_path / "q.mlpackage", "--bits", 8)
    pruned = mil_json("sparsify", source, tmp_path / "s.mlpackage", "--sparsity", 0.5)["tensors"]
    left = mil_json("sparsify", source, tmp_path / "t.mlpackage", "--threshold", 1e-6,
                    "--min-sparsity", 0.9)["tensors"]
    chunks = mil_json("chunk", source, tmp_path / "1.mlpackage", tmp_path / "2.mlpackage")
    compiled = mil_json("compile", source, tmp_path / "m.mlmodelc", "--name", "model")

    assert [t["bits"] for t in tensors] == [4, 4]
    assert tensors[0]["bytes_before"] == WEIGHT_BYTES
    assert tensors[0]["bytes_after"] == WEIGHT_BYTES // 4 + 16 * 2 + 4 * 4  # and shape
    assert pruned[0]["bits"] == 1
    most = WEIGHT_BYTES // 2 + WEIGHT_BYTES // 16 + 4 * 4  # values, mask, shape
    assert 0.99 * most < pruned[0]["bytes_after"] <= most  # all of the same magnitude go
    assert left == []
    assert [c["path"] for c in chunks["chunks"]] == [
        str(tmp_path / "1.mlpackage"), str(tmp_path / "2.mlpackage")]
    assert compiled == {"compiled": [{"path": str(tmp_path / "m.mlmodelc")}]}
    for name in ("4.mlpackage", "m.mlpackage", "q.mlpackage", "s.mlpackage", "t.mlpackage",
                 "2.mlpackage", "m.mlmodelc"):
        assert mil("verify", tmp_path / name)[0] == 0


# how it ends


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_a_message_and_not_a_traceback(command, tmp_path, mil):
    status, out = mil(command, tmp_path / "nothing")

    assert status == 1
    assert "neither a package (no Manifest.json) nor a compiled model (no model.mil)" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("arguments", [
    ["run", "m", "--input", "x"], ["run", "m", "--input", "=x"], ["run", "m", "--seed", "s"],
    ["palettize", "m", "d", "--bits", "4", "--mixed", "a=b"], ["palettize", "m", "d"], ["shwo"],
    ["diff", "m"], [],
])
def test_what_is_asked_for_wrongly_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["mil", *arguments])

    assert ended.value.code == 2
    assert "usage: sdbuild mil" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--input", "x=nothing.npy"], "input x: nothing.npy: "),
    (["--input", "y={array}"], "inputs that no program has: y"),
    (["--input", "x={array}"], "input x: found float64 (3,)"),
    (["--input", "x={text}"], "input x: "),
    (["--function", "other"], "no function 'other'; found: main"),
    (["--out", "{text}"], "File exists"),
])
def test_bad_arguments_of_run_are_told(arguments, expected, source, tmp_path, mil):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text").write_text("not an array")
    places = {"array": tmp_path / "array.npy", "text": tmp_path / "text"}

    status, out = mil("run", source, *(word.format(**places) for word in arguments))

    assert status == 1
    assert expected in out


def test_names_cannot_drive_a_terminal_or_lead_out_of_the_folder(source, tmp_path, mil):
    def change(spec):
        name = "\x1b[2J"
        spec.description.output[0].name = main_block(spec).outputs[0] = name
        [op for op in main_block(spec).operations if op.type == "relu"][-1].outputs[0].name = name

    driven = edited(source, tmp_path / "driven.mlpackage", change)
    for command in COMMANDS:
        assert "\x1b" not in mil(command, driven)[1]

    def escape(spec):
        name = "../out"
        spec.description.output[0].name = main_block(spec).outputs[0] = name
        [op for op in main_block(spec).operations if op.type == "relu"][-1].outputs[0].name = name

    escaping = edited(source, tmp_path / "escaping.mlpackage", escape)
    status, out = mil("run", escaping, "--out", tmp_path / "inner")
    assert (status, (tmp_path / "out.npy").exists()) == (1, False)
    assert "output '../out' is no name for a file" in out


def test_the_command_line_starts_without_anything_heavy():
    code = ("import sys\nfrom sdbuild.cli import main\n"
            "try:\n main(['mil', '--help'])\nexcept SystemExit:\n pass\n"
            "print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}
    assert loaded & {"numpy", "torch", "coremltools", "google"} == set()
