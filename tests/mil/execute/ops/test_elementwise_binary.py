import numpy as np
import pytest

from tests.mil.operations import check, floats

X, Y = floats(2, 3, seed=1), floats(3, seed=2)
WHOLE, BY = np.array([[7, -7, 7], [0, 5, -1]], np.int32), np.array([2, 2, -2], np.int32)
P, Q = np.array([True, True, False]), np.array([[True], [False]])


@pytest.mark.parametrize(("kind", "function"), [
    ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("maximum", np.maximum),
    ("minimum", np.minimum), ("floor_div", np.floor_divide), ("mod", np.mod),
    ("equal", np.equal), ("not_equal", np.not_equal), ("less", np.less),
    ("less_equal", np.less_equal), ("greater", np.greater), ("greater_equal", np.greater_equal),
])
def test_numbers_are_broadcast(kind, function):
    check(kind, function(X, Y), x=X, y=Y)
    check(kind, function(WHOLE, BY), x=WHOLE, y=BY)


def test_power():
    check("pow", np.abs(X) ** Y, x=np.abs(X), y=Y)
    check("pow", np.array([8, 1, 9], np.int32), x=np.array([2, 5, -3], np.int32),
          y=np.array([3, 0, 2], np.int32))


def test_real_division_of_integers_drops_the_fraction():
    check("real_div", X / Y, x=X, y=Y)
    check("real_div", np.array([[3, -3, -3], [0, 2, 0]], np.int32), x=WHOLE, y=BY)


@pytest.mark.parametrize(("kind", "function"), [
    ("logical_and", np.logical_and), ("logical_or", np.logical_or),
    ("logical_xor", np.logical_xor),
])
def test_truth_values(kind, function):
    check(kind, function(P, Q), x=P, y=Q)
