import numpy as np

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.ir.program import NamedType, StateType, TensorType
from tests.mil.operations import model_of, operation

KIND = TensorType("fp16", (2,))


def test_a_state_lives_on_between_predictions():
    operations = [
        operation("read_state", {"before": KIND}, input="total"),
        operation("add", {"after": KIND}, x="before", y="x"),
        operation("coreml_update_state", {"kept": KIND}, state="total", value="after"),
    ]
    inputs = [NamedType("x", KIND), NamedType("total", StateType(KIND))]
    executor = Executor(model_of(operations, inputs, ["before", "kept"]))

    first = executor.predict({"x": np.array([1, 2])})
    second = executor.predict({"x": np.array([10, 20])})

    assert [first["before"].tolist(), first["kept"].tolist()] == [[0, 0], [1, 2]]
    assert [second["before"].tolist(), second["kept"].tolist()] == [[1, 2], [11, 22]]
