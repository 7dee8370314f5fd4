import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.kmeans import Histogram, histogram, indices, nearest, palette

FINITE = st.floats(width=16, allow_nan=False, allow_infinity=False)


def least_error(values: np.ndarray, counts: np.ndarray, size: int) -> float:
    """The squared error of the best partition into `size` runs, by trying them all."""
    best = float("inf")
    for cuts in itertools.combinations(range(1, len(values)), size - 1):
        error = 0.0
        for start, stop in itertools.pairwise((0, *cuts, len(values))):
            v, c = values[start:stop], counts[start:stop]
            error += float(c @ (v - (v @ c) / c.sum()) ** 2)
        best = min(best, error)
    return best


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=5, max_size=9),
       st.sampled_from([1, 2]))
@settings(max_examples=150, deadline=None)
def test_no_other_palette_has_a_smaller_error(pairs, nbits):
    points = dict(pairs)
    values = np.array(sorted(points), np.float64)
    counts = np.array([points[v] for v in values], np.float64)

    table = palette(Histogram(values=values, counts=counts), nbits, np.float64)

    error = counts @ (values - table[nearest(table, values)]) ** 2
    if len(values) <= 2**nbits:
        assert error == 0
    else:
        assert least_error(values, counts, 2**nbits) == pytest.approx(error, abs=1e-9)


@given(st.lists(FINITE, min_size=1, max_size=200))
@settings(deadline=None)
def test_the_histogram_counts_every_fp16_value(numbers):
    array = np.array(numbers, np.float16)

    found = histogram(array)

    values, counts = np.unique(array.astype(np.float64), return_counts=True)
    np.testing.assert_array_equal(values, found.values)
    np.testing.assert_array_equal(counts, found.counts)


@given(st.lists(FINITE, min_size=1, max_size=300), st.sampled_from([1, 2, 3, 4, 6, 8]))
@settings(deadline=None)
def test_every_element_gets_its_nearest_entry_of_an_ascending_table(numbers, nbits):
    array = np.array(numbers, np.float16)

    table = palette(histogram(array), nbits, array.dtype)
    chosen = table[indices(table, array)].astype(np.float64)

    assert 2**nbits == len(table)
    assert (np.diff(table.astype(np.float64)) >= 0).all()
    gaps = np.abs(array.astype(np.float64)[:, None] - table.astype(np.float64))
    np.testing.assert_array_equal(gaps.min(axis=1), np.abs(array.astype(np.float64) - chosen))


def test_few_values_are_kept_exactly_and_the_last_fills_the_table():
    array = np.array([[3.0, -1.0], [0.5, 3.0]], np.float16)

    table = palette(histogram(array), 3, array.dtype)

    np.testing.assert_array_equal([-1, 0.5, 3, 3, 3, 3, 3, 3], table)
    np.testing.assert_array_equal(array.reshape(-1), table[indices(table, array)])


def test_minus_zero_and_zero_are_one_value():
    found = histogram(np.array([-0.0, 0.0, 1.0], np.float16))

    np.testing.assert_array_equal([0, 1], found.values)
    np.testing.assert_array_equal([2, 1], found.counts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(dtype, bad):
    with pytest.raises(MILError, match="2 of 3 values are NaN or infinite"):
        histogram(np.array([bad, 1, bad], dtype))


def test_the_clusters_are_those_of_the_kmeans_that_coremltools_carries():
    kmeans1d = pytest.importorskip("coremltools._deps.kmeans1d")
    array = np.random.default_rng(1).standard_normal(20_000).astype(np.float16)
    values, counts = np.unique(array.astype(float), return_counts=True)

    table = palette(histogram(array), 6, array.dtype)

    expected = kmeans1d.cluster(values.tolist(), 64, weights=counts.tolist())
    np.testing.assert_array_equal(np.array(expected.centroids, np.float16), table)


def test_fp32_of_many_values_comes_close_to_the_optimum_of_its_fp16_twin():
    exact = np.random.default_rng(2).standard_normal(200_000).astype(np.float32)
    twin = exact.astype(np.float16)

    table = palette(histogram(exact), 4, exact.dtype)
    other = palette(histogram(twin), 4, twin.dtype).astype(np.float32)

    def error(entries):
        gaps = exact - entries[indices(entries, exact)]
        return float(gaps.astype(np.float64) @ gaps)

    assert np.float32 == table.dtype
    assert error(table) <= error(other)


@pytest.mark.parametrize("spread", ["one far value", "heavy tails", "magnitudes"])
def test_fp32_of_many_values_is_as_close_as_exact_clusters_of_all_of_them(spread):
    kmeans1d = pytest.importorskip("coremltools._deps.kmeans1d")
    rng = np.random.default_rng(1)
    array = {
        "one far value": np.append(rng.standard_normal(70_000), 1e6),
        "heavy tails": rng.standard_cauchy(70_000),
        "magnitudes": np.exp(5 * rng.standard_normal(70_000)),
    }[spread].astype(np.float32)

    table = palette(histogram(array), 4, array.dtype)

    def error(entries):
        gaps = array - entries[indices(entries, array)].astype(np.float64)
        return float(gaps @ gaps)

    expected = kmeans1d.cluster(np.sort(array).tolist(), 16)
    assert error(table) <= error(np.array(expected.centroids, np.float32)) * 1.0001
