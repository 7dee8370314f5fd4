"""Allocation: no other choice of bits costs less in as many bytes."""

import itertools

import numpy as np
import pytest

from sdbuild.base.errors import StepError
from sdbuild.quality.allocate import Weight, allocate, packed_bytes, total_bytes
from sdbuild.quality.rated import Ratings

WIDTHS = (1, 2, 4, 6, 8)


def weights(count, seed):
    """Weights of different sizes; each bit more makes the cost about a fourth."""
    rng = np.random.default_rng(seed)
    return {f"w{i}": Weight(elements=int(rng.integers(3_000, 60_000)), costs={
        bits: float(rng.lognormal(0, 2) * 4.0**-bits) for bits in WIDTHS}) for i in range(count)}


def cost(found, bits):
    return sum(weight.costs[bits[name]] for name, weight in found.items())


@pytest.mark.parametrize("average", [1.5, 2, 3, 4, 5.3, 7])
def test_the_bits_are_as_good_as_the_best_of_all_that_fit(average):
    found = weights(5, seed=int(average * 10))
    budget = sum(packed_bytes(w.elements, average) for w in found.values())

    bits = allocate(found, budget)

    every = (dict(zip(found, choice, strict=True))
             for choice in itertools.product(WIDTHS, repeat=len(found)))
    best = min(cost(found, each) for each in every if total_bytes(found, each) <= budget)
    assert total_bytes(found, bits) <= budget
    assert cost(found, bits) == pytest.approx(best, rel=0.02)


def test_many_weights_use_the_budget_up_to_the_smallest_step():
    found = weights(700, seed=1)
    budget = sum(packed_bytes(w.elements, 4) for w in found.values())

    bits = allocate(found, budget)

    assert 0 <= budget - total_bytes(found, bits) < 3_000


def test_a_weight_that_costs_nothing_gets_the_fewest_bits():
    found = {"dead": Weight(elements=10_000, costs=dict.fromkeys(WIDTHS, 0.0)),
             "alive": Weight(elements=10_000, costs={b: 4.0**-b for b in WIDTHS})}

    bits = allocate(found, 2 * packed_bytes(10_000, 4))

    assert bits == {"dead": 1, "alive": 6}


def test_a_budget_below_the_fewest_bits_has_no_allocation():
    found = weights(3, seed=2)

    assert allocate(found, 1_000) is None
    assert allocate(found, total_bytes(found, dict.fromkeys(found, 1))) is not None


def test_bytes_are_those_of_indices_and_of_a_table_in_fp16():
    assert packed_bytes(4096, 4) == 4096 // 2 + 16 * 2
    assert packed_bytes(4097, 1) == 513 + 2 * 2


@pytest.mark.parametrize("content", [None, b"", b"not an array"])
def test_a_table_that_cannot_be_read_is_an_error_with_its_name(content, tmp_path):
    (tmp_path / "tables").mkdir()
    if content is not None:
        (tmp_path / "tables" / "conv.weight.npy").write_bytes(content)

    with pytest.raises(StepError, match=r"conv\.weight\.npy"):
        Ratings(folder=tmp_path, energy=1.0, weights={}).table("conv.weight", 4)
