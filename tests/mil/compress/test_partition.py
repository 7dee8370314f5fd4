import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.mil.compress import partition
from sdbuild.mil.compress.partition import best_cuts

SPREADS = {
    "normal": lambda rng, count: rng.standard_normal(count),
    "uniform": lambda rng, count: rng.uniform(-1, 1, count),
    "heavy tails": lambda rng, count: rng.standard_cauchy(count),
    "two heaps": lambda rng, count: rng.standard_normal(count) + 9 * rng.integers(0, 2, count),
}


def points(spread: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = np.unique(SPREADS[spread](rng, count))
    return values, rng.integers(1, 40, len(values)).astype(np.float64)


def error(values: np.ndarray, weights: np.ndarray, cuts: np.ndarray) -> float:
    """The squared error of the runs between the cuts, run by run."""
    total = 0.0
    for start, stop in itertools.pairwise(cuts):
        v, w = values[start:stop], weights[start:stop]
        total += float(w @ (v - v @ w / w.sum()) ** 2)
    return total


def errors_by_dynamic_programming(values: np.ndarray, weights: np.ndarray, runs: int) -> float:
    """The least error, over all places of all cuts."""
    count = len(values)
    run = np.full((count + 1, count + 1), np.inf)
    for start, stop in itertools.combinations(range(count + 1), 2):
        run[start, stop] = error(values, weights, np.array([start, stop]))
    least = run[0]
    for _ in range(runs - 1):
        least = (least[:, None] + run).min(axis=0)
    return float(least[count])


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("runs", [64, 256])
def test_the_cuts_are_those_of_a_search_over_all_points(spread, runs):
    kmeans1d = pytest.importorskip("coremltools._deps.kmeans1d")
    values, weights = points(spread, 9_000)

    cuts = best_cuts(values, weights, runs)

    expected = kmeans1d.cluster(values.tolist(), runs, weights=weights.tolist())
    borders = np.flatnonzero(np.diff(expected.clusters)) + 1
    best = error(values, weights, np.array([0, *borders, len(values)]))
    assert best == pytest.approx(error(values, weights, cuts), rel=1e-9)
    assert runs + 1 == len(cuts)


@given(st.sampled_from(sorted(SPREADS)), st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_no_other_cuts_of_few_points_have_a_smaller_error(spread, runs, seed):
    values, weights = points(spread, 60, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "_FEW_RUNS", 1)  # else so few points are cut by their errors alone
        patch.setattr(partition, "_LEAST_COARSER", 2)

        cuts = best_cuts(values, weights, runs)

    best = errors_by_dynamic_programming(values, weights, runs)
    assert best == pytest.approx(error(values, weights, cuts), rel=1e-9)


@pytest.mark.parametrize("start", ["even", "left", "right"])
def test_the_best_cuts_are_found_from_far_away(start):
    values, weights = points("normal", 600)
    sums = partition._sums(values, weights)
    cuts = {
        "even": np.linspace(0, 600, 33).astype(int),
        "left": np.array([*range(32), 600]),
        "right": np.array([0, *range(569, 601)]),
    }[start]

    moved = partition._best_nearby(sums, cuts)
    while partition._gain(sums, moved) > partition._gain(sums, cuts):
        cuts, moved = moved, partition._best_nearby(sums, moved)

    best = error(values, weights, partition._cuts_by_errors(values, weights, 32))
    assert best == pytest.approx(error(values, weights, cuts), rel=1e-9)


def test_equal_weights_of_a_line_are_cut_evenly():
    values = np.arange(64 * 40, dtype=np.float64)

    cuts = best_cuts(values, np.ones_like(values), 64)

    np.testing.assert_array_equal(np.arange(65) * 40, cuts)


@pytest.mark.parametrize("far", [(3e4,), (-3e4,), (3e4, -3e4), (1e9, 2e9, 3e9)])
@pytest.mark.parametrize("runs", [16, 64])
def test_points_far_from_all_others_do_not_blur_where_these_are_cut(far, runs):
    near, _ = points("normal", 4_000)
    near /= 1_000
    values = np.sort([*near, *far])

    cuts = best_cuts(values, np.ones_like(values), runs)

    alone = best_cuts(near, np.ones_like(near), runs - len(far))
    best = error(near, np.ones_like(near), alone)
    found = error(values, np.ones_like(values), cuts)
    assert best == pytest.approx(found, rel=1e-3)
