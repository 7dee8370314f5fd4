import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.ir.program import Block, ListType, NamedType, TensorType
from tests.mil.operations import const, model_of, operation

PAIR, TRUTH, WHOLE = TensorType("fp32", (2,)), TensorType("bool"), TensorType("int32")
PAIRS = ListType(PAIR, 1)  # as coremltools has it, whatever becomes of the list
TWO = const(np.int32(2))
X = np.array([1, 3], np.float32)


def made(length, kind=PAIRS):
    return operation("make_list", {"ls": kind}, init_length=const(np.int32(length)),
                     elem_shape=[TWO])


def predicted(operations, outputs, **inputs):
    kinds = [NamedType("x", PAIR)]
    return Executor(model_of(operations, kinds, outputs)).predict({"x": X, **inputs})


def test_a_list_grows_to_hold_what_is_written_and_is_zero_elsewhere():
    found = predicted([
        made(2),
        operation("list_read", {"before": PAIR}, ls="ls", index=const(np.int32(0))),
        operation("list_write", {"one": PAIRS}, ls="ls", index=const(np.int32(4)), value="x"),
        operation("list_scatter", {"two": PAIRS}, ls="one", indices=const([2, 0]),
                  value=const([[-1.0, -2.0], [-4.0, -5.0]])),
        operation("list_length", {"length": WHOLE}, ls="two"),
        operation("list_gather", {"rows": TensorType("fp32", (4, 2))}, ls="two",
                  indices=const([4, 2, 3, 0])),
        operation("list_read", {"after": PAIR}, ls="ls", index=const(np.int32(0))),
    ], ["before", "length", "rows", "after"])

    assert found["length"] == 5
    assert found["rows"].tolist() == [[1, 3], [-1, -2], [0, 0], [-4, -5]]
    assert found["before"].tolist() == found["after"].tolist() == [0, 0]  # `ls` stays as it was


def test_a_loop_appends_to_a_list_that_it_carries():
    bound = (NamedType("i", WHOLE), NamedType("l", PAIRS))
    check = Block(operations=(operation("less", {"go": TRUTH}, x="i", y=const(np.int32(3))),),
                  outputs=("go",), inputs=bound)
    body = Block(operations=(
        operation("list_write", {"longer": PAIRS}, ls="l", index="i", value="x"),
        operation("add", {"next": WHOLE}, x="i", y=const(np.int32(1))),
    ), outputs=("next", "longer"), inputs=bound)

    found = predicted([
        made(1),
        operation("const", {"zero": WHOLE}, {"val": const(np.int32(0))}),
        operation("while_loop", {"n": WHOLE, "all": PAIRS}, blocks=(check, body),
                  loop_vars=["zero", "ls"]),
        operation("list_length", {"length": WHOLE}, ls="all"),
    ], ["n", "length"])

    assert (found["n"], found["length"]) == (3, 3)


@pytest.mark.parametrize("index", [2, -1])
def test_an_element_that_is_not_there_is_refused(index):
    read = operation("list_read", {"out": PAIR}, ls="ls", index=const(np.int32(index)))

    with pytest.raises(InvalidProgram, match="list_read out"):
        predicted([made(2), read], ["out"])


def test_elements_of_another_shape_are_refused():
    write = operation("list_write", {"more": PAIRS}, ls="ls", index=const(np.int32(0)),
                      value=const([1.0, 2.0, 3.0]))

    with pytest.raises(InvalidProgram, match="list_write more"):
        predicted([made(2), write], ["more"])


def test_what_is_written_has_the_type_of_the_elements():
    write = operation("list_write", {"more": PAIRS}, ls="ls", index=const(np.int32(0)),
                      value=const([1, 2]))

    with pytest.raises(InvalidProgram, match="list_write more: argument"):
        predicted([made(2), write], ["more"])
