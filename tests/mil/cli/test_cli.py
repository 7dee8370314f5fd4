"""`sdbuild mil …`: what it prints, and how it ends; `verify` and `run` are elsewhere."""

import json
import os
import subprocess
import sys

import coremltools as ct
import pytest

from sdbuild.cli.main import main
from sdbuild.mil.files.package import read_package
from tests.mil.packages import IOS18, convolutions, edited, main_block, operation, quiet

WEIGHT_BYTES = 36 * 36 * 3 * 3 * 2
BIAS_BYTES = 36 * 2
COMMANDS = ("show", "ops", "weights", "verify", "run")


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
    assert (program["before"], program["after"]) == ("relu", "sigmoid")
    (weights,) = [name for part, name in found if part == "weights"]
    first = read_package(source).program.main.block.operations[0]
    assert weights == f"main: {first.name}.val"


def test_where_blobs_lie_is_no_difference(source, tmp_path, mil):
    with quiet():
        ct.models.MLModel(str(source), skip_model_load=True).save(str(tmp_path / "c.mlpackage"))

    assert mil("diff", source, tmp_path / "c.mlpackage") == (0, "")


def test_a_package_does_not_differ_from_its_compiled_form_and_what_is_left_out_is_said(
    source, tmp_path, mil
):
    mil("compile", source, tmp_path / "m.mlmodelc")

    assert mil("diff", source, tmp_path / "m.mlmodelc") == (
        0, "attribute buildInfo: not compared, as the compiler adds to it\n")


def test_of_an_operation_that_both_have_diff_tells_the_arguments_that_differ(
    source, tmp_path, mil_json, mil
):
    mil_json("palettize", source, tmp_path / "p.mlpackage", "--bits", 4)

    status, out = mil("diff", source, tmp_path / "p.mlpackage", "--json")

    convolutions = [(d["before"], d["after"]) for d in json.loads(out)["differences"]
                    if d["before"].startswith("weight=")]
    assert status == 1
    assert 2 == len(convolutions)
    assert all(after == f"{before}_palettized" for before, after in convolutions)


def test_show_and_weights_tell_whose_function_each_thing_is(source, tmp_path, mil):
    other = convolutions(tmp_path / "other.mlpackage", IOS18, layers=1)
    described = ct.utils.MultiFunctionDescriptor(str(other))
    described.add_function(str(other), src_function_name="main", target_function_name="second")
    described.default_function_name = "main"
    with quiet():
        ct.utils.save_multifunction(described, str(tmp_path / "two.mlpackage"))

    _, shown = mil("show", tmp_path / "two.mlpackage")
    _, listed = mil("weights", tmp_path / "two.mlpackage")

    assert "main      input   x" in shown and "second    input   x" in shown
    assert [line.split()[0] for line in listed.splitlines()] == [
        "function", "main", "main", "second", "second"]
    assert not mil("weights", source)[1].startswith("function")


# editing


def test_a_type_that_no_operation_has_is_refused(source, tmp_path, mil):
    status, out = mil("palettize", source, tmp_path / "p.mlpackage", "--bits", 4,
                      "--skip-type", "covn")

    assert (status, list(tmp_path.iterdir())) == (1, [])
    assert "no operation is a 'covn'; did you mean \"conv\"?" in out


def test_pairs_of_one_name_are_refused(source, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["mil", "palettize", str(source), str(tmp_path / "p.mlpackage"), "--bits=4",
              "--mixed", "conv*=4", "--mixed", "conv*=6"])

    assert (ended.value.code, list(tmp_path.iterdir())) == (2, [])
    assert "--mixed conv*: given twice, expected once" in capsys.readouterr().err


def test_groups_that_do_not_fit_are_reported(tmp_path, mil):
    package = convolutions(tmp_path / "m.mlpackage", IOS18, layers=2)

    status, out = mil("palettize", package, tmp_path / "7", "--bits", 4, "--group-size", 7)
    fitting = [mil("palettize", package, tmp_path / f"{size}", "--bits", 4, "--group-size", size)[1]
               for size in (6, 36)]

    assert status == 0
    assert "2 of 2 weights have one table: their channels cannot be parted into groups of 7" in out
    assert not any("one table" in printed for printed in fitting)


def test_weights_that_grow_are_reported(tmp_path, mil):
    package = convolutions(tmp_path / "m.mlpackage", IOS18, layers=2)

    grown = mil("palettize", package, tmp_path / "8", "--bits", 8, "--group-size", 1)[1]
    shrunk = mil("palettize", package, tmp_path / "1", "--bits", 1, "--group-size", 1)[1]

    assert "2 of 2 weights take more bytes than before" in grown  # 36 tables of 256 fp16 each
    assert "more bytes" not in shrunk


def test_blocks_that_do_not_fit_are_reported(tmp_path, mil, mil_json):
    package = convolutions(tmp_path / "m.mlpackage", IOS18, layers=2)

    status, out = mil("quantize", package, tmp_path / "7", "--bits", 8, "--block-size", 7)
    tensors = mil_json("quantize", package, tmp_path / "j", "--bits", 8, "--block-size", 7)
    fitting = [mil("quantize", package, tmp_path / f"{size}", "--bits", 8, "--block-size", size)[1]
               for size in (12, 36)]

    assert status == 0
    assert ("2 of 2 weights have no blocks:"
            " their input channels cannot be parted into blocks of 7") in out
    assert [tensor["is_whole"] for tensor in tensors["tensors"]] == [True, True]
    assert not any("no blocks" in printed for printed in fitting)


@pytest.mark.parametrize(("command", "options", "rule"), [
    ("palettize", ["--bits", 4, "--min-elements", 99999],
     "floats of more than 99999 elements and one axis"),
    ("quantize", ["--bits", 8, "--block-size", 12, "--skip-type", "conv"],
     "floats of more than 2048 elements and one axis, that are not to be skipped"),
    ("sparsify", ["--threshold", 1e-9], "floats of more than 2048 elements and one axis, "
     "of which a share of 0.5 would be zero"),
])
def test_an_edit_that_changes_no_weight_says_so_and_which_it_takes(
    command, options, rule, tmp_path, mil, mil_json,
):
    package = convolutions(tmp_path / "m.mlpackage", IOS18, layers=2)

    printed = mil(command, package, tmp_path / "out", *options)

    assert printed == (0, f"{tmp_path / 'out'}: none of the 4 weights was changed; "
                       f"eligible are {rule}\n")
    assert mil_json(command, package, tmp_path / "json", *options) == {"tensors": []}
    assert mil("diff", package, tmp_path / "out") == (0, "")


def test_an_edit_says_how_many_weights_it_left_alone(tmp_path, mil):
    package = convolutions(tmp_path / "m.mlpackage", IOS18, layers=2)  # each has a small bias

    some = mil("quantize", package, tmp_path / "some", "--bits", 8, "--block-size", 36)[1]
    one = mil("quantize", package, tmp_path / "one", "--bits", 8, "--skip", "conv0*")[1]

    rule = "eligible are floats of more than 2048 elements and one axis"
    assert some.endswith(f"\n2 of 4 weights stay as they are; {rule}\n")
    assert one.endswith(f"\n3 of 4 weights stay as they are; {rule}, that are not to be skipped\n")


def test_a_pipe_is_not_waited_for(source, tmp_path, mil):
    for name, command in (("manifest", "weights"), ("weight", "palettize")):
        package = edited(source, tmp_path / name, lambda spec: None)
        file = {"manifest": package / "Manifest.json",
                "weight": read_package(package).root / "weights" / "weight.bin"}[name]
        file.unlink()
        os.mkfifo(file)
        extra = [tmp_path / "out", "--bits", 4] if command == "palettize" else []

        status, out = mil(command, package, *extra)

        assert status == 1
        assert name in out.lower()


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
    assert pruned[0]["bytes_after"] == (  # values, mask, shape
        WEIGHT_BYTES // 2 + WEIGHT_BYTES // 16 + 4 * 4)
    assert left == []
    assert [c["path"] for c in chunks["chunks"]] == [
        str(tmp_path / "1.mlpackage"), str(tmp_path / "2.mlpackage")]
    assert compiled == {"compiled": [{"path": str(tmp_path / "m.mlmodelc")}]}
    for name in ("4.mlpackage", "m.mlpackage", "q.mlpackage", "s.mlpackage", "t.mlpackage",
                 "2.mlpackage", "m.mlmodelc"):
        assert mil("verify", tmp_path / name)[0] == 0


# exit status


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_a_message_and_not_a_traceback(command, tmp_path, mil):
    (tmp_path / "empty").mkdir()

    status, missing = mil(command, tmp_path / "nothing")
    out = mil(command, tmp_path / "empty")[1]

    assert status == 1
    assert missing.count(str(tmp_path / "nothing")) == 1
    assert "there is no such file or folder" in missing
    assert "neither a package (no Manifest.json) nor a compiled model (no model.mil)" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("arguments", [
    ["run", "m", "--input", "x"], ["run", "m", "--input", "=x"], ["run", "m", "--seed", "s"],
    ["palettize", "m", "d", "--bits", "4", "--mixed", "a=b"], ["palettize", "m", "d"], ["shwo"],
    ["diff", "m"], [], ["run", "m", "--seed", "-1"], ["run", "m", "--weight-bytes", "-1"],
    ["quantize", "m", "d", "--bits", "8", "--workers", "0"],
    ["quantize", "m", "d", "--bits", "8", "--block-size", "0"],
    ["quantize", "m", "d", "--bits", "8", "--min-elements", "-1"],
    ["palettize", "m", "d", "--bits", "0"], ["palettize", "m", "d", "--bits", "4.5"],
    ["palettize", "m", "d", "--bits", "4", "--group-size", "-3"],
    ["sparsify", "m", "d", "--sparsity", "1.1"], ["sparsify", "m", "d", "--threshold", "nan"],
    ["sparsify", "m", "d", "--sparsity", "x"], ["chunk", "m", "d", "--one-package", "-5"],
    ["palettize", "m", "d", "--bits", "5"], ["quantize", "m", "d", "--bits", "3"],
    ["palettize", "m", "d", "--bits", "4", "--mixed", "a=5"], ["sparsify", "m", "d"],
    ["sparsify", "m", "d", "--sparsity", "0.5", "--threshold", "1"],
    ["sparsify", "m", "d", "--sparsity", "0.5", "--min-sparsity", "0.9"],
    ["chunk", "m", "d"], ["chunk", "m", "d", "e", "--one-package", "2"],
])
def test_what_is_asked_for_wrongly_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["mil", *arguments])

    assert ended.value.code == 2
    assert "usage: sdbuild mil" in capsys.readouterr().err


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


def test_a_reader_that_has_had_enough_is_no_error(tmp_path):
    package = convolutions(tmp_path / "m.mlpackage", layers=40)
    command = [sys.executable, "-m", "sdbuild", "mil", "show", "--text", str(package)]
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)

    os.close(writing)
    assert (141, "") == (done.returncode, done.stderr)


def test_what_cannot_be_written_is_reported_by_its_own_name(source, tmp_path):
    out = tmp_path / "out.mlpackage"
    code = ("import resource, sys\nfrom sdbuild.cli.main import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
            "sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", code, "mil", "palettize", source, out, "--bits", "4"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (1, f"ERROR: {out}: File too large\n") == (done.returncode, done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_outputs_are_not_worked_out_for_a_folder_that_is_a_file(source, tmp_path, mil):
    file = tmp_path / "file"
    file.touch()

    assert (1, f"ERROR: {file}: a file, expected a folder\n") == mil("run", source, "--out", file)


def test_the_command_line_starts_without_anything_heavy():
    code = ("import sys\nfrom sdbuild.cli.main import main\n"
            "try:\n main(['mil', '--help'])\nexcept SystemExit:\n pass\n"
            "print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}
    assert loaded & {"numpy", "torch", "coremltools", "google"} == set()
