"""Tensors of random numbers.

With a `seed` of 0 or more an operation gives the same numbers each time that it runs; without, or
with a negative one, others each time. The numbers are torch's: Core ML draws from the same
distributions with a generator that is not public, so that its numbers are others for any seed.
"""

from __future__ import annotations

import torch
from torch import Generator

from sdbuild.mil.execute.ops._types import T

_ZERO = torch.zeros(())
_ONE = torch.ones(())
_HALF = torch.full((), 0.5)


def random_bernoulli(shape: list[int], prob: T = _HALF, seed: int = -1) -> T:
    """Ones with the probability `prob`, else zeros."""
    return torch.bernoulli(prob.expand(shape), generator=_generator(seed))


def random_categorical(x: T, mode: str = "logits", size: int = 1, seed: int = -1) -> T:
    """Draws `size` classes from each distribution along the last axis, with replacement.

    Shapes:
        x: (*D, classes); returns: (*D, size)
    """
    if mode not in ("logits", "probs"):
        raise ValueError(f"mode {mode!r}, expected logits or probs")
    weights = x.softmax(-1) if mode == "logits" else x
    drawn = torch.multinomial(weights.reshape(-1, x.shape[-1]), size, replacement=True,
                              generator=_generator(seed))
    return drawn.reshape(*x.shape[:-1], size).to(x.dtype)


def random_normal(
    shape: list[int], mean: T = _ZERO, stddev: T = _ONE, seed: int = -1
) -> T:
    return mean + stddev * torch.randn(shape, generator=_generator(seed))


def random_uniform(shape: list[int], low: T = _ZERO, high: T = _ONE, seed: int = -1) -> T:
    """Numbers from `low` to below `high`; rounded to fp16 they may reach it."""
    return low + (high - low) * torch.rand(shape, generator=_generator(seed))


def _generator(seed: int) -> Generator:
    generator = Generator()
    if seed < 0:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
