import math

import numpy as np
import pytest

from tests.mil.operations import F16, check, floats

X = floats(3, 4)
UNIT = np.tanh(X)
POSITIVE = np.abs(X) + np.float32(0.1)


@pytest.mark.parametrize(("kind", "x", "function"), [
    ("abs", X, np.abs), ("acos", UNIT, np.arccos), ("asin", UNIT, np.arcsin),
    ("atan", X, np.arctan), ("atanh", UNIT, np.arctanh), ("ceil", X * 3, np.ceil),
    ("cos", X, np.cos), ("cosh", X, np.cosh), ("erf", X, np.vectorize(math.erf)),
    ("exp", X, np.exp), ("exp2", X, np.exp2), ("floor", X * 3, np.floor), ("sign", X, np.sign),
    ("sin", X, np.sin), ("sinh", X, np.sinh), ("sqrt", POSITIVE, np.sqrt),
    ("square", X, np.square), ("tan", UNIT, np.tan), ("tanh", X, np.tanh),
    ("log", POSITIVE, np.log), ("inverse", POSITIVE, lambda x: 1 / (x + 1e-4)),
    ("rsqrt", POSITIVE, lambda x: 1 / np.sqrt(x)),
])
def test_function_of_each_element(kind, x, function):
    check(kind, function(x).astype(np.float32), x=x)


@pytest.mark.parametrize(("kind", "function"), [
    ("inverse", lambda x: 1 / (x + 0.5)), ("log", lambda x: np.log(x + 0.5)),
    ("rsqrt", lambda x: 1 / np.sqrt(x + 0.5)),
])
def test_epsilon_is_added_before(kind, function):
    check(kind, function(POSITIVE).astype(np.float32), x=POSITIVE, epsilon=0.5)


def test_halves_are_rounded_to_even():
    x = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 2.6], np.float32)

    check("round", np.array([-2, 0, 0, 2, 2, 3], np.float32), x=x)


def test_bounds():
    check("clip", np.clip(X, -0.5, 0.5), x=X, alpha=-0.5, beta=0.5)
    check("threshold", np.maximum(X, 0.25), x=X, alpha=0.25)


def test_logical_not():
    check("logical_not", np.array([False, True]), x=np.array([True, False]))


@pytest.mark.parametrize(("x", "dtype", "expected"), [
    (np.array([2.7, -2.7], np.float32), "int32", np.array([2, -2], np.int32)),
    (np.array([0.5, 0, -3], F16), "bool", np.array([True, False, True])),
    (np.array([True, False]), "fp16", np.array([1, 0], F16)),
    (np.array([1 / 3, 70000], np.float32), "fp16", np.array([1 / 3, np.inf], np.float16)),
    (np.array([2049], np.int32), "fp16", np.array([2048], F16)),
    (np.array([-1, 65537], np.int32), "uint16", np.array([65535, 1], np.uint16)),
    (np.array([300], np.int32), "uint8", np.array([44], np.uint8)),
    (np.array([7], F16), "fp32", np.array([7], np.float32)),
])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_cast(x, dtype, expected):
    check("cast", expected, x=x, dtype=dtype)


def test_cast_to_fp16_leaves_its_input_alone():
    x = np.array([1 / 3], np.float32)

    check("cast", x.astype(F16), x=x, dtype="fp16")

    assert x[0] == np.float32(1 / 3)
