"""A request: the pictures that are asked of a bundle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The pictures that are asked for; picture i of `count` has the seed `seed + i`."""

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    count: int
