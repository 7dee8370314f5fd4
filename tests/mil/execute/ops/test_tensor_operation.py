import numpy as np
import pytest

from tests.mil.operations import F16, check, const, floats

X = floats(2, 3, 4)
TIES = np.array([[3, 1, 3, 2], [0, 5, 0, 5]], np.float32)


def test_argsort_keeps_equal_elements_in_order():
    check("argsort", np.array([[0, 2, 3, 1], [1, 3, 0, 2]], np.int32), x=TIES)
    check("argsort", np.array([[1, 3, 0, 2], [0, 2, 1, 3]], np.int32), x=TIES, ascending=True)


@pytest.mark.parametrize(("lower", "upper"), [(-1, -1), (1, -1), (-1, 0), (0, 2)])
def test_band_part(lower, upper):
    row, column = np.indices((3, 4))
    keep = ((lower < 0) | (row - column <= lower)) & ((upper < 0) | (column - row <= upper))

    check("band_part", X * keep, x=X, lower=lower, upper=upper)


def test_concat():
    y = floats(2, 1, 4, seed=1)

    check("concat", np.concatenate([X, y], 1), values=[X, y], axis=-2)


@pytest.mark.parametrize("axis", [0, -1, 3])
@pytest.mark.parametrize("interleave", [False, True])
def test_concat_of_scalars_gives_a_vector_as_coremltools_infers(axis, interleave):
    values = [np.array(number, np.int32) for number in (4, 5, 6)]

    check("concat", np.array([4, 5, 6], np.int32), values=values, axis=axis,
          interleave=interleave)


def test_concat_interleaved():
    y = floats(2, 3, 4, seed=1)
    expected = np.empty((2, 6, 4), np.float32)
    expected[:, ::2], expected[:, 1::2] = X, y

    check("concat", expected, values=[X, y], axis=1, interleave=True)


@pytest.mark.parametrize(("arguments", "expected"), [
    ({}, [1, 3, 6]), ({"exclusive": True}, [0, 1, 3]), ({"reverse": True}, [6, 5, 3]),
    ({"exclusive": True, "reverse": True}, [5, 3, 0]),
])
def test_cumsum(arguments, expected):
    check("cumsum", np.array(expected, np.int32), x=np.array([1, 2, 3], np.int32), axis=0,
          **arguments)


def test_fill():
    check("fill", np.full((2, 3), 0.5, np.float32), shape=[2, 3], value=0.5)
    check("fill", np.zeros(2, np.float32), shape=np.array([2], np.int32))
    check("fill", np.full((2,), 7, np.int32), shape=[2], value=7)
    check("fill_like", np.full((2, 3, 4), 3, np.int32), ref_tensor=X, value=3)


def test_flatten2d():
    check("flatten2d", X.reshape(6, 4), x=X, axis=-1)
    check("flatten2d", X.reshape(2, 12), x=X)


def test_identity_and_shape():
    check("identity", X, x=X)
    check("shape", np.array([2, 3, 4], np.int32), x=X)


def test_non_zero():
    check("non_zero", np.array([[0, 1], [2, 0]], np.int32),
          x=np.array([[0, 5], [0, 0], [-1, 0]], np.float32))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis):
    indices = np.array([[0, 2], [1, 0]], np.int32)
    expected = np.moveaxis(np.where(np.eye(3)[indices] == 1, 9, 4), -1, axis).astype(np.int32)

    check("one_hot", expected, indices=indices, one_hot_vector_size=3, axis=axis, on_value=9,
          off_value=4)


@pytest.mark.parametrize(("pad", "mode", "numpy_mode"), [
    ([1, 2], "constant", "constant"), ([1, 0, 0, 2], "constant", "constant"),
    ([1, 0, 0, 2, 3, 1], "reflect", "reflect"), ([2, 2, 1, 0], "reflect", "reflect"),
    ([0, 2, 4, 1], "replicate", "edge"),
])
def test_pad_is_for_the_last_dimensions(pad, mode, numpy_mode):
    x = floats(3, 3, 4)
    pairs = [(0, 0)] * (3 - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))
    value = {"constant_values": 7} if mode == "constant" else {}

    check("pad", np.pad(x, pairs, numpy_mode, **value), x=x, pad=pad, mode=mode, constant_val=7.0)


def test_range_1d():
    check("range_1d", np.array([2, 5, 8], np.int32), start=np.array(2, np.int32), end=11, step=3)
    check("range_1d", np.array([1, 0.75], np.float32), start=1.0, end=0.5, step=-0.25)


def test_split():
    check("split", X[..., :2], X[..., 2:], x=X, axis=-1, num_splits=2)
    check("split", X[:, :1], X[:, 1:], x=X, axis=1, split_sizes=[1, 2])


def test_stack_and_tile():
    check("stack", np.stack([X, -X], -1), values=[X, -X], axis=-1)
    check("stack", np.array([1, 2], np.int32), axis=0,
          values=[np.array(1, np.int32), np.array(2, np.int32)])
    check("tile", np.tile(X, (2, 1, 3)), x=X, reps=[2, 1, 3])


def test_topk():
    check("topk", np.array([[3, 3], [5, 5]], np.float32), np.array([[0, 2], [1, 3]], np.int32),
          x=TIES, k=2)
    check("topk", np.array([[1], [0]], F16), np.array([[1], [0]], np.uint16), x=TIES.astype(F16),
          ascending=True, output_indices_dtype="uint16")
    check("topk", np.sort(TIES, 0)[::-1], x=TIES, k=const(np.array(-1, np.int32)), axis=0,
          return_indices=False)
