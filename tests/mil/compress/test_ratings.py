"""The cost of a table, against what a layer with it computes."""

import numpy as np
import pytest

from sdbuild.mil.compress import feedback
from sdbuild.mil.compress.kmeans import histogram, palette
from sdbuild.mil.compress.ratings import compensated_costs

COLUMNS = 24


@pytest.mark.parametrize(("rows", "within"), [(48, 0.01), (400, 0.2)])
def test_the_cost_is_the_squared_error_of_what_a_layer_gives(rows, within):
    rng = np.random.default_rng(6)
    inputs = rng.standard_normal((500, 6)) @ rng.standard_normal((6, COLUMNS))
    inputs += 0.3 * rng.standard_normal(inputs.shape)
    matrix = (0.1 * rng.standard_normal((rows, COLUMNS))).astype(np.float16)
    counts = rng.random(rows) + 0.5
    table = palette(histogram(matrix), 3, matrix.dtype)
    products = inputs.T @ inputs / len(inputs)
    order = rng.permutation(COLUMNS).astype(np.int32)
    factors, variances = np.zeros((COLUMNS, COLUMNS), np.float32), np.zeros(COLUMNS)
    for number, column in enumerate(order):
        later = order[number + 1:]
        told = np.linalg.solve(products[np.ix_(later, later)], products[later, column])
        factors[number, number + 1:] = -told
        variances[column] = products[column, column] - products[column, later] @ told
    size = np.diag(products).mean()

    found, = compensated_costs(
        matrix, np.repeat(counts, COLUMNS).reshape(matrix.shape).astype(np.float16), [table],
        order[None], factors[None], variances / size)

    made = table[feedback.indices(matrix, table, order[None], factors[None])]
    errors = inputs @ (made.astype(np.float64) - matrix).T
    wanted = (np.square(errors).mean(0) * counts).sum() / size
    assert found == pytest.approx(wanted, rel=within)
