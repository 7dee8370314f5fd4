"""The fast form of a plan against the plan itself: the same bits."""

import numpy as np
import pytest
import torch

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.execute.fusion import SLICE, Sliced
from sdbuild.mil.ir.program import NamedType, TensorType
from tests.mil.operations import F16, const, floats, model_of, operation

ROWS, KEYS, WIDTH = 600, 1024, 64


@pytest.fixture(autouse=True)
def one_thread():
    """With several, matrix libraries may divide a sum by the shape that it is part of, and some
    processors' do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kind(*shape, dtype="fp16"):
    return TensorType(dtype, shape)


def given(*shapes):
    """Inputs x0, x1, … of these shapes, and their values."""
    arrays = {f"x{i}": floats(*shape, seed=i, dtype=F16) for i, shape in enumerate(shapes)}
    return [NamedType(n, kind(*a.shape)) for n, a in arrays.items()], arrays


def chains(executor):
    """The types of the operations that run together."""
    return ["+".join(inner.operation.type for inner in step.steps)
            for step in executor._fast.steps if isinstance(step, Sliced)]


def assert_same_bits(model, arrays, expected_chains):
    fast, clear = Executor(model), Executor(model, is_fast=False)

    found, expected = ([e.predict(arrays) for _ in range(2)][1] for e in (fast, clear))

    assert chains(fast) == expected_chains
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert all(np.isfinite(array).all() for array in expected.values())


def attention(transpose_y, masked):
    keys = (2, 3, KEYS, WIDTH) if transpose_y else (2, 3, WIDTH, KEYS)
    inputs, arrays = given((2, 3, ROWS, WIDTH), keys, (2, 3, KEYS, WIDTH), (1, 1, ROWS, KEYS))
    scores, rows = kind(2, 3, ROWS, KEYS), kind(2, 3, ROWS, WIDTH)
    operations = [
        operation("matmul", {"s": scores}, x="x0", y="x1", transpose_y=const(transpose_y)),
        operation("mul", {"m": scores}, x="s", y=const(F16(0.125))),
        operation("add", {"a": scores}, x="m", y="x3"),
        operation("softmax", {"p": scores}, x="a" if masked else "m", axis=const(-1)),
        operation("matmul", {"o": rows}, x="p", y="x2"),
    ]
    kept = operations if masked else [o for o in operations if o.type != "add"]
    return model_of(kept, inputs, ["o"]), arrays


@pytest.mark.parametrize("transpose_y", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_runs_in_slices_with_the_same_bits(transpose_y, masked):
    model, arrays = attention(transpose_y, masked)
    middle = "mul+add" if masked else "mul"

    assert_same_bits(model, arrays, [f"matmul+{middle}+softmax+matmul"])


def test_attention_in_slices_is_the_same_to_the_last_digits_with_several_threads():
    torch.set_num_threads(2)
    model, arrays = attention(transpose_y=True, masked=True)
    fast, clear = Executor(model), Executor(model, is_fast=False)

    found, expected = (e.predict(arrays)["o"].astype(np.float32) for e in (fast, clear))

    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=2**-12)  # a digit of fp16


def test_elementwise_chains_run_in_slices_with_the_same_bits():
    shape = kind(2, 64, 80, 80)
    inputs, arrays = given(shape.shape, (2, 64, 1, 1), (64, 1, 1))
    operations = [
        operation("mul", {"m": shape}, x="x0", y="x1"),
        operation("add", {"a": shape}, x="x2", y="m"),
        operation("silu", {"s": shape}, x="a"),
        operation("gelu", {"g": shape}, x="s", mode=const("EXACT")),
    ]

    assert_same_bits(model_of(operations, inputs, ["g"]), arrays, ["mul+add+silu+gelu"])


def test_values_with_other_readers_end_a_chain():
    shape = kind(64, SLICE // 64)
    inputs, arrays = given(shape.shape)
    operations = [
        operation("exp", {"e": shape}, x="x0"),
        operation("sqrt", {"r": shape}, x="e"),
        operation("add", {"a": shape}, x="e", y="r"),
    ]

    assert_same_bits(model_of(operations, inputs, ["a"]), arrays, ["exp", "sqrt+add"])


def test_outputs_of_the_program_end_a_chain():
    shape = kind(64, SLICE // 64)
    inputs, arrays = given(shape.shape)
    operations = [operation("exp", {"e": shape}, x="x0"), operation("tanh", {"t": shape}, x="e")]

    assert_same_bits(model_of(operations, inputs, ["e", "t"]), arrays, ["exp", "tanh"])


def reuses(operations, inputs, outputs):
    executor = Executor(model_of(operations, inputs, outputs))
    return [step.reuses for step in executor._fast.steps if isinstance(step, Sliced)]


def test_a_result_takes_the_memory_of_an_operand_that_nothing_needs_any_more():
    shape = kind(2, 4, SLICE)
    inputs, arrays = given(shape.shape)
    linear = operation("layer_norm", {"n": shape}, x="x0", axes=const([-1]))
    plus = operation("add", {"a": shape}, x="n", y="x0")
    seen = operation("transpose", {"v": kind(4, 2, SLICE)}, x="n", perm=const([1, 0, 2]))
    again = operation("exp", {"e": shape}, x="n")

    assert reuses([linear, plus], inputs, ["a"]) == ["n"]
    assert reuses([linear, plus], inputs, ["a", "n"]) == [None]
    assert reuses([linear, seen, plus], inputs, ["a", "v"]) == [None]
    assert reuses([linear, plus, again], inputs, ["a", "e"]) == [None, "n"]
    assert_same_bits(model_of([linear, seen, plus], inputs, ["a", "v"]), arrays, ["add"])


def test_inputs_of_the_caller_are_never_written_over():
    shape = kind(8, SLICE)
    inputs, _ = given(shape.shape)

    assert reuses([operation("exp", {"e": shape}, x="x0")], inputs, ["e"]) == [None]


@pytest.mark.parametrize(("steps", "expected"), [
    ([("softmax", {"axis": 0})], []),
    ([("softmax", {"axis": 1})], ["softmax"]),
    ([("cumsum", {"axis": 1})], []),
    ([("square", {}), ("reverse", {}), ("sqrt", {})], ["square", "sqrt"]),
])
def test_only_what_keeps_rows_apart_is_sliced(steps, expected):
    shape = kind(64, SLICE // 64)
    inputs, arrays = given(shape.shape)
    operations, last = [], "x0"
    for number, (type_, arguments) in enumerate(steps):
        constants = {name: const(value) for name, value in arguments.items()}
        operations.append(operation(type_, {f"y{number}": shape}, x=last, **constants))
        last = f"y{number}"

    assert_same_bits(model_of(operations, inputs, [last]), arrays, expected)


def test_small_values_run_as_planned():
    inputs, arrays = given((4, 64))

    model = model_of([operation("exp", {"e": kind(4, 64)}, x="x0")], inputs, ["e"])

    assert_same_bits(model, arrays, [])


@pytest.mark.parametrize("ceiling", [0, 4 * 64 * 64, None])
def test_weights_decoded_for_each_use_give_the_same_bits(ceiling):
    weights = [floats(64, 64, seed=i, dtype=F16) for i in range(3)]
    operations, last = [], "x0"
    for number, weight in enumerate(weights):
        name = f"y{number}"
        value = operation("const", {f"w{number}": kind(64, 64)}, attributes={"val": const(weight)})
        product = operation("linear", {name: kind(5, 64)}, x=last, weight=f"w{number}")
        operations += [value, product]
        last = name
    inputs, arrays = given((5, 64))
    executor = Executor(model_of(operations, inputs, [last]), weight_bytes=ceiling)

    found = executor.predict(arrays)[last]

    decoded = sum(len(step.operands) - 1 for step in executor._block.steps)
    assert decoded == {0: 3, 4 * 64 * 64: 2, None: 0}[ceiling]
    rows = arrays["x0"]
    for weight in weights:
        rows = (rows.astype(np.float64) @ weight.T.astype(np.float64)).astype(F16)
    np.testing.assert_allclose(found, rows, rtol=2e-2, atol=0.5)
