import numpy as np

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.ir.program import Block, NamedType, TensorType
from tests.mil.operations import check, const, floats, model_of, operation

FLOAT, TRUTH = TensorType("fp32", (2,)), TensorType("bool")


def test_select():
    a, b = floats(2, 3), floats(3, seed=1)
    condition = np.array([[True], [False]])

    check("select", np.where(condition, a, b), cond=condition, a=a, b=b)


def test_cond_runs_one_block_that_sees_the_values_around_it():
    double = operation("add", {"twice": FLOAT}, x="x", y="x")
    negate = operation("sub", {"minus": FLOAT}, x=const([0.0, 0.0]), y="x")
    blocks = (Block(operations=(double,), outputs=("twice",)),
              Block(operations=(negate,), outputs=("minus",)))
    choice = operation("cond", {"out": FLOAT}, blocks=blocks, pred="p")
    inputs = [NamedType("x", FLOAT), NamedType("p", TRUTH)]
    executor = Executor(model_of([choice], inputs, ["out"]))

    found = [executor.predict({"x": np.array([1, 2]), "p": np.array(p)}) for p in (True, False)]

    assert [each["out"].tolist() for each in found] == [[2, 4], [-1, -2]]


def test_while_loop_runs_until_its_condition_fails():
    number = TensorType("fp32")
    check_ = operation("less", {"go": TRUTH}, x="n", y=const(100.0))
    double = operation("add", {"next": number}, x="m", y="m")
    blocks = (
        Block(operations=(check_,), outputs=("go",), inputs=(NamedType("n", number),)),
        Block(operations=(double,), outputs=("next",), inputs=(NamedType("m", number),)),
    )
    loop = operation("while_loop", {"out": number}, blocks=blocks, loop_vars=["x"])
    executor = Executor(model_of([loop], [NamedType("x", number)], ["out"]))

    assert executor.predict({"x": np.array(3)})["out"] == 192
