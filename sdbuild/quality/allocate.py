"""Allocation: how many bits each weight gets, so that all together cost least in so many bytes.

The cost of a choice is added up over weights, as if their errors did not meet. That ranks choices
well; it does not predict what they cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_CELLS = 1 << 15
"""The parts that a budget is divided into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight, and the cost of its tables by their bits."""

    elements: int
    costs: Mapping[int, float]


def packed_bytes(elements: int, bits: float) -> int:
    """Returns the bytes of indices of so many bits, and of their table in fp16."""
    return int(-(-elements * bits // 8) + 2 * 2**bits)


def allocate(
    weights: Mapping[str, Weight], budget_bytes: int, most_cost: float | None = None
) -> dict[str, int] | None:
    """Returns the bits of each weight, of least cost in all; with `most_cost` those in the fewest
    bytes that cost no more. None if there are none.

    Sizes are rounded up to a 32,768th of the budget; what that leaves over is spent where a byte
    gains most.
    """
    cell = max(1, budget_bytes // _CELLS)
    cells = budget_bytes // cell
    best = np.zeros(cells + 1)
    taken: list[np.ndarray] = []
    for weight in weights.values():
        best, choice = _with(best, weight, cell)
        taken.append(choice)
    fitting = np.flatnonzero(best <= most_cost) if most_cost is not None else [cells]
    if not len(fitting) or not np.isfinite(best[cells]):
        return None
    bits, left = {}, int(fitting[0])
    for (name, weight), choice in zip(
            reversed(list(weights.items())), reversed(taken), strict=True):
        bits[name] = int(choice[left])
        left -= _size(weight, bits[name], cell)
    bits = {name: bits[name] for name in weights}
    return bits if most_cost is not None else _spent(weights, bits, budget_bytes)


def _size(weight: Weight, bits: int, cell: int) -> int:
    return -(-packed_bytes(weight.elements, bits) // cell)


def _with(best: np.ndarray, weight: Weight, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least cost in each number of cells with one weight more, and its bits there.

    Shapes:
        best: (cells + 1,); returns: (cells + 1,), (cells + 1,)
    """
    found = np.full(len(best), np.inf)
    choice = np.zeros(len(best), np.uint8)
    for bits, cost in sorted(weight.costs.items()):
        size = _size(weight, bits, cell)
        if size >= len(best):
            continue
        offered = best[:len(best) - size] + cost
        is_better = offered < found[size:]
        found[size:][is_better] = offered[is_better]
        choice[size:][is_better] = bits
    return found, choice


def _spent(
    weights: Mapping[str, Weight], bits: dict[str, int], budget_bytes: int
) -> dict[str, int]:
    """Returns the bits with what is left of the budget spent."""
    left = budget_bytes - total_bytes(weights, bits)
    while step := max(_steps(weights, bits, left), default=None):
        _, name, more, size = step
        bits[name], left = more, left - size
    return bits


def _steps(
    weights: Mapping[str, Weight], bits: Mapping[str, int], left: int
) -> list[tuple[float, str, int, int]]:
    """Returns the ways to give one weight more bits: gain for a byte, name, bits and bytes."""
    found = []
    for name, weight in weights.items():
        now = packed_bytes(weight.elements, bits[name])
        for more, cost in weight.costs.items():
            size = packed_bytes(weight.elements, more) - now
            gain = weight.costs[bits[name]] - cost
            if 0 < size <= left and gain > 0:
                found.append((gain / size, name, more, size))
    return found


def total_bytes(weights: Mapping[str, Weight], bits: Mapping[str, int]) -> int:
    """Returns the bytes of all weights with these bits."""
    return sum(packed_bytes(weight.elements, bits[name]) for name, weight in weights.items())
