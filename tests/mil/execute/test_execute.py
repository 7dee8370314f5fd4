import weakref

import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedOp
from sdbuild.mil.execute import ops
from sdbuild.mil.execute.execute import Executor, first_nonfinite
from sdbuild.mil.ir.program import Block, ListType, NamedType, TensorType, Value
from tests.mil.operations import F16, const, floats, model_of, operation


def kind(*shape, dtype="fp16"):
    return TensorType(dtype, shape)


X = NamedType("x", kind(2))


def chain(*steps, inputs=(X,), output=None):
    """A model whose operations each work on the one before; steps are (type, arguments)."""
    operations, last = [], "x"
    for position, (type_, arguments) in enumerate(steps):
        name = f"{type_}_{position}"
        operations.append(operation(type_, {name: kind(2)}, x=last, **arguments))
        last = name
    return model_of(operations, inputs, [output or last])


# data types


def test_every_result_of_fp16_is_rounded_to_fp16():
    third = const(np.array(1 / 3, F16))
    model = chain(("mul", {"y": third}), ("mul", {"y": third}))

    found = Executor(model).predict({"x": np.array([1, 5], F16)})["mul_1"]

    expected = np.array([1, 5], F16) * F16(1 / 3) * F16(1 / 3)
    assert found.dtype == np.float16
    assert found.tolist() == expected.tolist()


def test_arithmetic_inside_of_an_operation_is_in_fp32():
    x = np.full((2, 3000), 100, F16)  # its sum overflows fp16, its mean does not
    mean = operation("reduce_mean", {"out": kind(2)}, x="x", axes=const([1]))
    model = model_of([mean], [NamedType("x", kind(2, 3000))], ["out"])

    assert Executor(model).predict({"x": x})["out"].tolist() == [100, 100]


def test_overflow_of_fp16_shows_as_infinity_unless_run_in_fp32():
    model = chain(("square", {}), ("sqrt", {}))
    given = {"x": np.array([300, 3], np.float32)}

    declared = Executor(model).predict(given)["sqrt_1"]
    wide = Executor(model, precision="fp32").predict(given)["sqrt_1"]

    assert (declared.dtype, declared.tolist()) == (np.float16, [np.inf, 3])
    assert (wide.dtype, wide.tolist()) == (np.float32, [300, 3])


def test_inputs_are_cast_to_what_the_program_declares():
    cast = operation("cast", {"out": kind(2, dtype="fp32")}, x="n", dtype=const("fp32"))
    inputs = [X, NamedType("n", kind(2, dtype="int32"))]
    model = model_of([cast], inputs, ["x", "out"])

    found = Executor(model).predict({"x": np.array([1 / 3, 1e6]), "n": np.array([2.9, -1.5])})

    assert found["x"].tolist() == [float(F16(1 / 3)), np.inf]
    assert found["out"].tolist() == [2, -1]


def test_the_caller_keeps_its_arrays():
    x = np.array([1 / 3, 2 / 3], np.float32)

    Executor(chain(("relu", {}))).predict({"x": x})

    assert x.tolist() == np.array([1 / 3, 2 / 3], np.float32).tolist()


def test_a_result_that_is_its_argument_is_not_rounded_in_place():
    """`einsum` of one tensor gives back a view of it."""
    swap = operation("einsum", {"out": kind(2, 2)}, values=["x"], equation=const("ij->ji"))
    wide = NamedType("x", kind(2, 2, dtype="fp16"))
    executor = Executor(model_of([swap], [wide], ["out", "x"]))

    found = executor.predict({"x": np.arange(4).reshape(2, 2)})

    assert found["out"].tolist() == [[0, 2], [1, 3]]
    assert found["x"].tolist() == [[0, 1], [2, 3]]


# refusals


def test_all_operations_that_are_not_supported_are_named_at_once():
    inner = Block(operations=(operation("teleport", {"c": kind(2)}),), outputs=("c",))
    nested = operation("cond", {"d": kind(2)}, blocks=(inner, inner), pred=const(True))
    model = model_of([operation("conv_quantized", {"a": kind(2)}), nested], [X], ["d"])

    with pytest.raises(UnsupportedOp) as caught:
        Executor(model)

    assert str(caught.value) == (
        "test: operations that the portable executor lacks: conv_quantized (1), teleport (2)\n\n"
        "hint: Add a function of that name to its family in sdbuild/mil/ops/."
    )
    assert caught.value.facts["counts"] == {"conv_quantized": 1, "teleport": 2}


@pytest.mark.parametrize("name", ["torch", "_axes", "F", "signature", "CARRIERS"])
def test_what_only_lies_in_a_family_is_no_operation(name):
    assert ops.find(name) is None


def test_every_operation_is_found_by_its_name():
    assert all(ops.find(name) is not None for name in ops.names())
    assert {"pow", "abs", "round", "softmax"} <= set(ops.names())


@pytest.mark.parametrize(("given", "message"), [
    ({}, "inputs missing: x; unknown: none\n\nhint: The program's inputs are: x."),
    ({"x": np.zeros(2), "y": np.zeros(2)},
     "inputs missing: none; unknown: y\n\nhint: The program's inputs are: x."),
    ({"x": np.zeros(3, np.float32)}, "input x: found float32 (3,), expected fp16 (2,)"),
    ({"x": np.array(["a", "b"])}, "input x: found <U1 (2,), expected fp16 (2,)"),
])
def test_inputs_that_do_not_fit_are_refused(given, message):
    executor = Executor(chain(("relu", {})))

    with pytest.raises(MILError) as caught:
        executor.predict(given)

    assert str(caught.value) == message


def refused(model, given=None):
    """The message of the refusal, at once or when it runs."""
    with pytest.raises(InvalidProgram) as caught:
        Executor(model).predict(given or {"x": np.zeros(2)})
    return caught.value.message.removeprefix("test: ")


def test_a_result_of_another_shape_than_declared_is_refused():
    model = model_of([operation("relu", {"out": kind(3)}, x="x")], [X], ["out"])

    assert refused(model) == (
        "relu out: output out: found torch.float32 (2,), expected fp16 (3,)"
    )


@pytest.mark.parametrize(("made", "message"), [
    (operation("add", {"out": kind(2)}, x="x", y=const(np.float32(1))),
     "add out: argument y: found fp32, expected fp16"),
    (operation("logical_not", {"out": kind(2, dtype="bool")}, x="x"),
     "logical_not out: argument x: found fp16, expected bool"),
    (operation("relu", {"out": kind(2, dtype="fp32")}, x="x"),
     "relu out: output out: found fp16, expected fp32"),
    (operation("cast", {"out": kind(2)}, x="x", dtype=const("fp32")),
     "cast out: output out: found fp32, expected fp16"),
    (operation("add", {"out": kind(2)}, x="x", z="x"),
     "add out: arguments missing: y; unknown: z; expected some of x, y"),
    (operation("relu", {"out": kind(2)}, x="later"),
     "relu out: refers to later, which is not defined before it"),
    (operation("relu", {"out": kind(2), "more": kind(2)}, x="x"),
     "relu out: has no output more"),
    (operation("split", {"out": kind(2)}, x="x", axis=const(0), num_splits=const(2)),
     "split out: found 2 outputs, expected 1"),
    (operation("split", {"out": kind(2)}, x="x", axis=const(0), num_splits=const(3)),
     "split out: 2 elements in 3 equal parts"),
])
def test_operations_that_break_the_rules_are_refused(made, message):
    assert refused(model_of([made], [X], ["out"])) == message


WIDEST = 2**31 - 1
LIST = Value(ListType(kind(2), 1), ())


@pytest.mark.parametrize(("made", "message"), [
    (operation("relu", {"out": kind(2)}, x=[]),
     "relu out: argument x: found 0 values that it is bound to, expected one"),
    (operation("softmax", {"out": kind(2)}, x="x", axis=[]),
     "softmax out: argument axis: found 0 values that it is bound to, expected one"),
    (operation("relu", {"out": kind(2)}, x=["x", "x"]),
     "relu out: argument x: found 2 values that it is bound to, expected one"),
    (operation("softmax", {"out": kind(2)}, x="x", axis=const([0, 1])),
     "softmax out: argument axis: can only convert an array of size 1 to a Python scalar"),
    (operation("relu", {"out": kind(2)}, x=const("text")),
     "relu out: argument x: found a string or a list, expected a tensor of numbers"),
    (operation("relu", {"out": kind(2)}, x=LIST),
     "relu out: argument x: found a string or a list, expected a tensor of numbers"),
    (operation("const", {"out": kind(2)}), "const out: argument val: it is missing"),
    (operation("const", {}, attributes={"val": const(1)}), "const : its output is missing"),
    (operation("const", {"out": kind(2)}, attributes={"val": LIST}),
     "the block's output out: found a string or a list, expected a tensor of numbers"),
    (operation("const", {"out": kind(2)}, attributes={"val": Value(kind(2), b"")}),
     f"the block's output out: a constant in place: 0 bytes, expected 4: {kind(2)}"),
    (operation("fill", {"out": kind(WIDEST, 2)}, shape=const([WIDEST, 2]), value=const(F16(0))),
     f"fill out: output out: found {2 * WIDEST} elements, expected at most {2**31} elements"),
])
def test_broken_operations_are_refused_when_they_are_planned(made, message):
    with pytest.raises(InvalidProgram) as caught:
        Executor(model_of([made], [X], ["out"]))

    assert caught.value.message == f"test: {message}"
    assert "`sdbuild mil verify test` lists all" in caught.value.hint


def test_a_result_that_turns_out_absurdly_large_is_refused():
    made = operation("fill", {"out": kind(None, 2)}, shape=const([WIDEST, 2]), value=const(F16(0)))

    assert refused(model_of([made], [X], ["out"])) == (
        f"fill out: output out: found ({WIDEST}, 2), expected at most {2**31} elements"
    )


def test_an_output_that_nothing_makes_is_refused():
    assert refused(model_of([], [X], ["out"])) == "the block's outputs out are not defined in it"


def test_a_function_that_is_not_there_is_refused():
    with pytest.raises(InvalidProgram, match="test: no function 'other'; found: main"):
        Executor(chain(("relu", {})), function="other")


# values


def test_dimensions_that_are_not_known_take_any_size():
    item = NamedType("x", kind(None, 2))
    model = model_of([operation("relu", {"out": kind(None, 2)}, x="x")], [item], ["out"])

    assert Executor(model).predict({"x": -np.ones((5, 2))})["out"].shape == (5, 2)


def test_values_are_freed_after_their_last_use():
    alive = []

    def observe(seen):
        alive.append([name for name, reference in references.items() if reference() is not None])
        references.update({n: weakref.ref(t) for n, t in seen.outputs.items()})

    references = {}
    model = chain(("relu", {}), ("exp", {}), ("add", {"y": "relu_0"}), ("sqrt", {}), ("tanh", {}))
    Executor(model, observe=observe).predict({"x": np.zeros(2)})

    assert alive == [
        [], ["relu_0"], ["relu_0", "exp_1"], ["add_2"], ["sqrt_3"],
    ]


def test_a_result_that_nobody_uses_is_freed_and_outputs_are_kept():
    model = chain(("relu", {}), ("exp", {}), output="relu_0")

    assert Executor(model).predict({"x": np.array([1, 2])}).keys() == {"relu_0"}


def test_constants_may_be_used_and_given_anywhere():
    half = operation("const", {"half": kind(2)}, attributes={"val": const(np.full(2, 0.5, F16))})
    twice = [operation("add", {f"out{i}": kind(2)}, x="x", y="half") for i in range(2)]
    executor = Executor(model_of([half, *twice], [X], ["out0", "out1", "half"]))

    found = [executor.predict({"x": np.ones(2)}) for _ in range(2)]

    assert all(each["half"].tolist() == [0.5, 0.5] for each in found)
    assert all(each["out1"].tolist() == [1.5, 1.5] for each in found)


# observation


def test_observers_see_each_operation_with_what_went_in_and_came_out():
    seen = []
    model = chain(("add", {"y": const(np.ones(2, F16))}), ("softmax", {"axis": const(0)}))

    Executor(model, observe=seen.append).predict({"x": np.zeros(2)})

    assert [each.operation.type for each in seen] == ["add", "softmax"]
    assert seen[0].inputs["y"].tolist() == [1, 1]
    assert seen[1].inputs["axis"] == 0
    assert seen[1].outputs["softmax_1"].tolist() == [0.5, 0.5]
    assert all(each.seconds > 0 for each in seen)


def test_the_first_operation_that_made_something_not_finite_is_found():
    model = chain(("exp", {}), ("square", {}), ("sub", {"y": "square_1"}), ("relu", {}))

    found = first_nonfinite(model, {"x": np.array([9, 0])})

    assert str(found) == (
        "square square_1: 0 NaN and 1 infinite in square_1, from x in [1, 8104]"
    )


def test_infinity_that_was_given_does_not_count_as_made_but_nan_from_it_does():
    mask = const(np.array([-np.inf, 0], F16))
    model = chain(("add", {"y": mask}), ("softmax", {"axis": const(0)}))
    masked = chain(("add", {"y": mask}), ("sub", {"y": "add_0"}))

    assert first_nonfinite(model, {"x": floats(2)}) is None
    assert str(first_nonfinite(masked, {"x": floats(2)})).startswith("sub sub_1: 1 NaN")
