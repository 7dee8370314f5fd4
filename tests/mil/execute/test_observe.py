import math

import numpy as np
import pytest

from sdbuild.mil.execute.observe import losses, profile, worst
from sdbuild.mil.ir.program import NamedType, TensorType
from tests.mil.operations import F16, const, floats, model_of, operation

FP16 = TensorType("fp16", (2000,))
X = NamedType("x", FP16)


def cancelling():
    """x + 512 - 512: the sum keeps one bit in a hundred of a small x; the difference shows it."""
    return model_of([
        operation("relu", {"r": FP16}, x="x"),
        operation("add", {"a": FP16}, x="r", y=const(F16(512))),
        operation("sub", {"s": FP16}, x="a", y=const(F16(512))),
    ], [X], ["s"])


def test_losses_tell_the_signal_to_noise_ratio_of_every_value():
    x = np.abs(floats(2000)).astype(F16)

    found = {loss.output: loss for loss in losses(cancelling(), {"x": x})}

    exact = x.astype(np.float64)
    error = (x + F16(512)).astype(np.float64) - (exact + 512)
    expected = 10 * np.log10(np.mean((exact + 512) ** 2) / np.mean(error**2))
    assert (found["r"].snr_db, found["r"].max_error, found["r"].added_db) == (math.inf, 0, 0)
    assert found["a"].snr_db == pytest.approx(expected, abs=1e-3)
    assert found["a"].max_error == pytest.approx(np.abs(error).max(), rel=1e-3)
    assert found["s"].snr_db == pytest.approx(
        10 * np.log10(np.mean(exact**2) / np.mean(error**2)), abs=1e-3)


def test_the_worst_operation_is_the_one_that_lost_most_itself():
    x = np.abs(floats(2000)).astype(F16)

    first, second = worst(losses(cancelling(), {"x": x}), 2)

    assert (first.type, second.type) == ("sub", "add")
    assert first.added_db == pytest.approx(20 * np.log10(512 / np.sqrt(np.mean(x**2.0))), abs=0.1)


def test_rounding_a_value_once_loses_nothing():
    doubled = model_of([
        operation("cast", {"c": FP16}, x="x", dtype=const("fp16")),
        operation("mul", {"d": FP16}, x="c", y=const(F16(2))),
    ], [NamedType("x", TensorType("fp32", (2000,)))], ["d"])

    first, second = losses(doubled, {"x": np.linspace(1, 2, 2000, dtype=np.float32)})

    assert first.snr_db == pytest.approx(74.7, abs=0.2)
    assert first.added_db == pytest.approx(0, abs=0.2)
    assert second.added_db == pytest.approx(0, abs=0.01)


def test_what_is_not_finite_has_no_ratio():
    squares = model_of([operation("square", {"q": FP16}, x="x")], [X], ["q"])

    (found,) = losses(squares, {"x": np.full(2000, 300, F16)})

    assert math.isnan(found.snr_db) and math.isnan(found.max_error)


def test_a_profile_counts_operations_bytes_and_seconds_by_type():
    model = model_of([
        operation("relu", {"r": FP16}, x="x"),
        operation("relu", {"q": FP16}, x="r"),
        operation("cast", {"c": TensorType("int32", (2000,))}, x="q", dtype=const("int32")),
    ], [X], ["c"])

    found = {cost.type: cost for cost in profile(model, {"x": np.ones(2000)})}

    assert {kind: (cost.count, cost.bytes) for kind, cost in found.items()} == {
        "relu": (2, 4 * 4 * 2000), "cast": (1, 2 * 4 * 2000),
    }
    assert all(cost.seconds > 0 for cost in found.values())
