import numpy as np
import pytest

from tests.mil.operations import check, floats

X = floats(2, 3, 4)
WHOLE = np.arange(1, 7, dtype=np.int32).reshape(2, 3)


def over(function, of=lambda x: x, after=lambda x: x):
    return lambda x, axes, keep: after(function(of(x), axis=axes, keepdims=keep))


OPERATIONS = {
    "reduce_l1_norm": over(np.sum, of=np.abs),
    "reduce_l2_norm": over(np.sum, of=np.square, after=np.sqrt),
    "reduce_log_sum": over(np.sum, of=np.exp, after=np.log),
    "reduce_log_sum_exp": over(np.sum, of=np.exp, after=np.log),
    "reduce_max": over(np.max), "reduce_min": over(np.min), "reduce_mean": over(np.mean),
    "reduce_prod": over(np.prod), "reduce_sum": over(np.sum),
    "reduce_sum_square": over(np.sum, of=np.square),
}


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize("axes", [None, [-1], [0, 2]])
def test_reduction(kind, keep_dims, axes):
    expected = OPERATIONS[kind](X, None if axes is None else tuple(axes), keep_dims)
    x = np.exp(X) if kind == "reduce_log_sum" else X

    check(kind, np.float32(expected), x=x, axes=axes, keep_dims=keep_dims)


@pytest.mark.parametrize(("kind", "expected"), [
    ("reduce_sum", [6, 15]), ("reduce_prod", [6, 120]), ("reduce_max", [3, 6]),
    ("reduce_min", [1, 4]), ("reduce_mean", [2, 5]), ("reduce_sum_square", [14, 77]),
])
def test_integers_stay_integers(kind, expected):
    check(kind, np.array(expected, np.int32), x=WHOLE, axes=[1])


@pytest.mark.parametrize(("kind", "function"), [
    ("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin),
])
def test_position_of_an_extreme(kind, function):
    check(kind, function(X, -1).astype(np.int32), x=X)
    check(kind, function(X, 1, keepdims=True).astype(np.uint16), x=X, axis=1, keep_dims=True,
          output_dtype="uint16")
