"""`sdbuild mil run`: inputs, outputs, and what it says of them."""

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.proto import serialize
from tests.mil.packages import IOS17, IOS18, edited, half, package
from tests.mil.small import relu_description, relu_text, small_package


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


@pytest.fixture
def both_orders(tmp_path):
    """A model of two inputs, and the same with its inputs, features and arguments turned round."""
    def body(left, right):
        return mb.sub(x=left, y=right, name="out")

    def turn(spec):
        (function,) = spec.mlProgram.functions.values()
        for items in (function.inputs, spec.description.input):
            first, second = map(type(items[0]).FromString, map(serialize, items))
            del items[:]
            items.extend([second, first])

    one = package(tmp_path / "one.mlpackage", body, ((4,), types.fp32), ((4,), types.fp32))
    return one, edited(one, tmp_path / "other.mlpackage", turn)


def test_random_inputs_and_differences_do_not_depend_on_the_order_of_inputs_in_the_file(
    both_orders, mil, mil_json,
):
    one, other = both_orders
    assert [f.name for f in read_package(other).description.input] == ["right", "left"]

    assert mil_json("run", one, "--seed", 3)["outputs"] == (
        mil_json("run", other, "--seed", 3)["outputs"])
    assert mil("diff", one, other) == (0, "")


def test_inputs_of_one_shape_are_not_given_the_same_random_numbers(both_orders, mil_json):
    (row,) = mil_json("run", both_orders[0])["outputs"]

    assert row["max"] - row["min"] > 0.1


@pytest.mark.parametrize("count", [0, 36 * 4])
def test_weights_that_are_not_kept_give_the_same_outputs(count, source, mil_json):
    assert mil_json("run", source) == mil_json("run", source, "--weight-bytes", count)


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


def test_run_names_the_constant_that_holds_nan(tmp_path, mil):
    weight = half(64, 48)
    weight[1, 2] = np.nan

    def body(x):
        return mb.matmul(x=x, y=mb.const(val=weight, name="broken"), name="out")

    path = package(tmp_path / "m.mlpackage", body, ((1, 64), types.fp16), target=IOS17)

    status, out = mil("run", path)

    assert status == 0
    assert "the constant broken holds 1 NaN and 0 infinite" in out
    assert "None" not in out


def test_an_input_may_have_the_byte_order_of_another_machine(source, tmp_path, mil_json):
    x = half(1, 36, 8, 8).astype(np.float32)
    np.save(tmp_path / "little.npy", x.astype("<f4"))
    np.save(tmp_path / "big.npy", x.astype(">f4"))

    little, big = (mil_json("run", source, "--input", f"x={tmp_path / name}")
                   for name in ("little.npy", "big.npy"))

    assert little == big


def test_a_state_cannot_be_given(tmp_path, mil):
    def body(x, s):
        return mb.add(x=x, y=mb.read_state(input=s), name="out")

    path = package(tmp_path / "m.mlpackage", body, ((2, 3), types.fp16), target=IOS18,
                   states=[((2, 3), types.fp16)])
    np.save(tmp_path / "s.npy", np.ones((2, 3), np.float16))

    status, out = mil("run", path, "--input", f"s={tmp_path / 's.npy'}")

    assert status == 1
    assert "states that were given: s" in out


def two_functions(source, path, default):
    """A package with the function of `source` twice, as `one` and `two`."""
    def change(spec):
        main = spec.mlProgram.functions["main"]
        for name in ("one", "two"):
            spec.mlProgram.functions[name].CopyFrom(main)
        del spec.mlProgram.functions["main"]
        if default:
            spec.description.defaultFunctionName = default

    return edited(source, path, change)


def test_run_takes_the_models_default_function(source, tmp_path, mil):
    assert mil("run", two_functions(source, tmp_path / "m", "two"))[0] == 0

    status, out = mil("run", two_functions(source, tmp_path / "n", ""))

    assert status == 1
    assert f"{tmp_path / 'n'}: no function 'main'; found: one, two" in out
    assert "--function NAME" in out


def test_the_chunks_of_a_pipeline_run_in_a_row(source, tmp_path, mil, mil_json):
    status, _ = mil("chunk", source, tmp_path / "one.mlpackage", "--one-package", 2)
    assert status == 0

    mil_json("run", source, "--out", tmp_path / "whole")
    rows = mil_json("run", tmp_path / "one.mlpackage", "--out", tmp_path / "row")["outputs"]

    assert "out" in {row["name"] for row in rows}
    assert (np.load(tmp_path / "whole" / "out.npy").tobytes()
            == np.load(tmp_path / "row" / "out.npy").tobytes())


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--input", "x=nothing.npy"], "input x: nothing.npy: "),
    (["--input", "y={array}"], "inputs that no program has: y"),
    (["--input", "x={array}"], "input x: found float64 (3,)"),
    (["--input", "x={text}"], "input x: "),
    (["--function", "other"], "no function 'other'; found: main"),
    (["--out", "{text}"], "text: a file, expected a folder"),
])
def test_bad_arguments_of_run_are_reported(arguments, expected, source, tmp_path, mil):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text").write_text("not an array")
    places = {"array": tmp_path / "array.npy", "text": tmp_path / "text"}

    status, out = mil("run", source, *(word.format(**places) for word in arguments))

    assert status == 1
    assert expected in out


@pytest.mark.parametrize(("numbers", "is_held"), [
    ([0.0, 7.0], True), ([-1, 2**31 - 1], True), ([0.5, 1], False), ([0, 2**31], False),
    ([0, np.nan], False),
])
def test_integers_take_no_numbers_that_they_would_change(numbers, is_held, tmp_path, mil):
    def body(x):
        return mb.identity(x=x, name="out")

    path = package(tmp_path / "m.mlpackage", body, ((2,), types.int32), target=IOS17)
    np.save(tmp_path / "x.npy", np.array(numbers))

    status, out = mil("run", path, "--input", f"x={tmp_path / 'x.npy'}", "--out", tmp_path)

    if is_held:
        assert np.load(tmp_path / "out.npy").tolist() == numbers
    else:
        assert (1, "ERROR: input x: int32 cannot represent all of its numbers\n") == (status, out)


@pytest.mark.parametrize(("kind", "length", "expected"), [
    ("range", 3, 0), ("range", 8, 0), ("range", 9, 1), ("list", 3, 1), ("list", 4, 0),
])
def test_a_shape_that_the_description_does_not_allow_is_refused(
    kind, length, expected, tmp_path, mil
):
    def flexible(description):
        array = description.input[0].type.multiArrayType
        if kind == "range":
            array.shapeRange.sizeRanges.add(lowerBound=2, upperBound=8)
        else:
            array.enumeratedShapes.shapes.add(shape=[4])
        return description

    text = relu_text(kind="tensor<fp32, [?]>")
    path = small_package(tmp_path / "m.mlpackage", text, description=flexible(relu_description()))
    np.save(tmp_path / "x.npy", np.ones(length, np.float32))

    status, out = mil("run", path, "--input", f"input={tmp_path / 'x.npy'}")

    assert expected == status
    if expected:
        allowed = "of [2…8]" if kind == "range" else "one of [4]"
        assert out == f"ERROR: input input: found [{length}], expected float32 [4], {allowed}\n"
