import numpy as np
import pytest

from tests.mil.operations import check, floats

X = floats(3, 4, 5)
ROWS = np.array([[2, 0], [1, -1]], np.int32)
MODES = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum,
    "min": np.minimum,
}


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", [ROWS, np.array(1, np.int32), np.array([2], np.uint8)])
def test_gather(axis, indices):
    check("gather", np.take(X, indices, axis), x=X, indices=indices, axis=axis)


@pytest.mark.parametrize("index", [0, 2, -1])
@pytest.mark.parametrize("axis", [0, -1])
def test_gather_of_one_element_of_a_vector_gives_a_scalar(index, axis):
    x = np.array([7, 8, 9], np.int32)

    check("gather", x[index], x=x, indices=np.array(index, np.int32), axis=axis)


def test_gather_with_batches():
    indices = np.array([[0, 3], [1, 1], [-1, 2]], np.int32)
    expected = np.stack([X[i][indices[i]] for i in range(3)])

    check("gather", expected, x=X, indices=indices, axis=1, batch_dims=1)


def test_gather_along_axis():
    indices = np.array([[[0, 3, -1, 1, 2]]] * 3, np.int32)

    check("gather_along_axis", np.take_along_axis(X, indices, 1), x=X, indices=indices, axis=1)


def test_gather_nd():
    indices = np.array([[2, 0], [1, -1]], np.int32)
    batched = np.array([[1], [3], [0]], np.int32)

    check("gather_nd", X[indices[:, 0], indices[:, 1]], x=X, indices=indices)
    check("gather_nd", X[np.arange(3), batched[:, 0]], x=X, indices=batched, batch_dims=1)


@pytest.mark.parametrize("mode", MODES)
def test_scatter_combines_one_by_one(mode):
    indices, updates = np.array([1, 1, 3], np.int32), floats(3, 3, 5, seed=1)
    expected = X.copy()
    for position, index in enumerate(indices):
        expected[:, index] = MODES[mode](expected[:, index], updates[:, position])

    check("scatter", expected, data=X, indices=indices, updates=updates, axis=1, mode=mode)


def test_scatter_updates():
    updates = floats(2, 4, 5, seed=1)
    expected = X.copy()
    expected[[2, 0]] = updates

    check("scatter", expected, data=X, indices=np.array([-1, 0], np.int32), updates=updates,
          mode="update")


def test_scatter_along_axis():
    indices, updates = np.array([[[3, 0, 1, 1, 2]]] * 3, np.int32), floats(3, 1, 5, seed=1)
    expected = X.copy()
    np.put_along_axis(expected, indices, updates, 1)

    check("scatter_along_axis", expected, data=X, indices=indices, updates=updates, axis=1,
          mode="update")


def test_scatter_nd():
    updates = floats(2, 5, seed=1)
    expected = X.copy()
    expected[2, 1] += updates[0]
    expected[0, 3] += updates[1]

    check("scatter_nd", expected, data=X, indices=np.array([[2, 1], [0, 3]], np.int32),
          updates=updates)
