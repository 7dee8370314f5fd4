"""Indices whose errors are made up for: compiled or not the same, and better for the inputs."""

import numpy as np
import pytest

from sdbuild.mil.compress import feedback
from sdbuild.mil.compress.kmeans import histogram, nearest, palette

RNG = np.random.default_rng(5)


def layer(columns=70, width=32, rows=48):
    """A weight, its table, and the feedback of correlated inputs in blocks."""
    inputs = RNG.standard_normal((2000, 6)) @ RNG.standard_normal((6, columns))
    inputs += 0.3 * RNG.standard_normal(inputs.shape)
    matrix = (RNG.standard_normal((rows, columns)) * 0.1).astype(np.float16)
    blocks = -(-columns // width)
    order = np.tile(np.arange(width, dtype=np.int32), (blocks, 1))
    factors = np.zeros((blocks, width, width), np.float16)
    for number in range(blocks):
        part = inputs[:, number * width:(number + 1) * width]
        count = part.shape[1]
        order[number, :count] = RNG.permutation(count)
        products = (part.T @ part)[np.ix_(order[number, :count], order[number, :count])]
        for column in range(count - 1):
            rest = slice(column + 1, None)
            factors[number, column, column + 1:count] = -np.linalg.solve(
                products[rest, rest], products[rest, column])
    return inputs, matrix, palette(histogram(matrix), 3, matrix.dtype), order, factors


def test_compiled_and_plain_loops_give_the_same_indices(monkeypatch):
    _, *given = layer()
    found = []
    for worth in (True, False):
        monkeypatch.setattr(feedback, "kernels", lambda size, worth=worth: worth or None)
        found.append(feedback.indices(*given))

    np.testing.assert_array_equal(*found)


TABLES = {
    "1 bit": np.array([-0.1, 0.1]),
    "8 bits": np.linspace(-0.3, 0.3, 256),
    "one far value": np.append(np.linspace(-0.3, 0.3, 15), 60_000),
    "very near values": np.append(-30_000, np.linspace(0, 1e-4, 15)),
    "filled": np.repeat([-0.1, 0.2], 8),
    "all equal": np.full(16, 0.1),
    "the smallest numbers": np.arange(-8, 8) * 2.0**-24,
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("rows", [1, 300])
def test_whatever_the_table_the_loops_give_the_same(monkeypatch, name, rows):
    """Columns that are no multiple of those that are rounded at once, values at edges and beyond
    all of them, and errors that grow without end."""
    _, matrix, _, order, factors = layer(columns=75, width=33, rows=rows)
    table = TABLES[name].astype(np.float16)
    middles = (table[1:].astype(np.float32) + table[:-1].astype(np.float32)) / 2
    matrix[0, :len(middles)] = middles[:75]
    matrix[-1, -3:] = [0, 65_504, -65_504]
    found = []
    for worth in (True, False):
        monkeypatch.setattr(feedback, "kernels", lambda size, worth=worth: worth or None)
        found.append((feedback.indices(matrix, table, order, factors),
                      *feedback.errors(matrix, [table], order, factors)))

    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_feedback_each_element_has_the_nearest_entry():
    _, matrix, table, order, factors = layer()

    found = feedback.indices(matrix, table, order, np.zeros_like(factors))

    np.testing.assert_array_equal(
        found.ravel(), nearest(table, matrix.ravel().astype(np.float64)))


def test_the_layer_computes_more_nearly_the_same():
    inputs, matrix, table, order, factors = layer()
    wanted = inputs @ matrix.T.astype(np.float64)

    errors = []
    for used in (factors, np.zeros_like(factors)):
        made = table[feedback.indices(matrix, table, order, used)]
        errors.append(np.square(inputs @ made.T.astype(np.float64) - wanted).sum())

    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("rows", [1, 7, 48])
def test_rows_do_not_depend_on_each_other(rows):
    _, matrix, table, order, factors = layer()

    whole = feedback.indices(matrix, table, order, factors)

    np.testing.assert_array_equal(
        feedback.indices(matrix[:rows], table, order, factors), whole[:rows])
