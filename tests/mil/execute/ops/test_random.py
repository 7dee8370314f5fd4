"""Random values are tested against their distribution; no two generators give the same numbers."""

import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram
from tests.mil.operations import F16, F32, const, run

COUNT = 40_000
SHAPE = np.array([COUNT // 4, 4], np.int32)
LIKE = np.zeros(SHAPE, F32)
KINDS = ["random_bernoulli", "random_normal", "random_uniform"]


def drawn(kind, like=LIKE, **arguments):
    [found] = run(kind, [like], **arguments)
    assert like.dtype == found.dtype
    return found


def test_random_bernoulli_gives_ones_with_its_probability():
    found = drawn("random_bernoulli", shape=SHAPE, prob=0.3, seed=1)

    assert {0.0, 1.0} == set(found.reshape(-1).tolist())
    assert found.mean() == pytest.approx(0.3, abs=0.01)


def test_random_normal_has_its_mean_and_its_deviation():
    found = drawn("random_normal", shape=SHAPE, mean=2.0, stddev=3.0, seed=1)

    assert found.mean() == pytest.approx(2, abs=0.06)
    assert found.std() == pytest.approx(3, abs=0.05)
    within = [np.mean(np.abs(found - 2) < 3 * deviations) for deviations in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.01)


def test_random_uniform_fills_its_interval_evenly():
    found = drawn("random_uniform", shape=SHAPE, low=-1.0, high=3.0, seed=1)

    counts, _ = np.histogram(found, bins=8, range=(-1, 3))
    assert found.min() >= -1
    assert found.max() < 3
    np.testing.assert_allclose(counts / COUNT, np.full(8, 1 / 8), atol=0.01)


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_random_categorical_draws_from_each_row_by_its_weights(mode):
    weights = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]], F32)
    with np.errstate(divide="ignore"):
        x = np.log(weights) if mode == "logits" else weights

    found = drawn("random_categorical", np.zeros((2, COUNT), F32), x=x, mode=mode, size=COUNT)

    shares = [[np.mean(row == each) for each in range(3)] for row in found]
    np.testing.assert_allclose(shares, weights, atol=0.012)


def test_without_other_arguments_they_are_the_standard_ones():
    assert drawn("random_bernoulli", shape=SHAPE).mean() == pytest.approx(0.5, abs=0.02)
    assert drawn("random_normal", shape=SHAPE).std() == pytest.approx(1, abs=0.02)
    assert drawn("random_uniform", shape=SHAPE).mean() == pytest.approx(0.5, abs=0.02)
    found = drawn("random_categorical", np.zeros((2, 3, 1), F32), x=np.zeros((2, 3, 4), F32))
    assert found.max() <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_numbers_and_another_or_none_gives_others(kind):
    one, again, other = (drawn(kind, shape=SHAPE, seed=seed) for seed in (7, 7, 8))
    free, freer = (drawn(kind, shape=SHAPE, seed=-1) for _ in range(2))

    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (free != freer).any()


def test_what_is_drawn_has_the_type_of_its_arguments():
    found = drawn("random_normal", np.zeros((2, 3), F16), shape=const([2, 3]), seed=0,
                  mean=const(F16(0.1)), stddev=const(F16(0)))

    np.testing.assert_array_equal(found, np.full((2, 3), F16(0.1)))


@pytest.mark.parametrize(("kind", "arguments"), [
    ("random_bernoulli", {"shape": const([2]), "prob": 1.5}),
    ("random_categorical", {"x": np.ones(2, F32), "mode": "odds"}),
    ("random_normal", {"shape": np.array([-2], np.int32)}),
])
def test_what_cannot_be_drawn_is_refused_by_name(kind, arguments):
    with pytest.raises(InvalidProgram, match=kind):
        run(kind, [np.zeros(1, F32)], **arguments)
