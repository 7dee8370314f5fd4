"""A request: the pictures that are asked of a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple


class Control(NamedTuple):
    """A ControlNet by its name in the bundle, the file of the picture that it is given, and how
    strongly it counts."""

    name: str
    image: str
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}:{self.image}:{self.scale:g}"


PREDICTORS = ("auto", "coreml", "portable")
"""Executors of a bundle's models; `auto` is Core ML on a Mac and `portable` elsewhere."""

SEEDS = 1 << 63
"""Random numbers are seeded with a number from 0 to below this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The pictures that are asked for, and how they are drawn.

    `host` is the one whose pictures they are (`bundle/hosts.py`), and what is None is as it has it:
    `rng` its random numbers, `tokenizer`, `spacing` of the timesteps, `karras` that of the sigmas.
    `image` is the file of a picture to begin with, `strength` how much of it is drawn anew, and
    `mask` the file of one that is white where that is. `control` are ControlNets, and `refiner` is
    the share of the steps after which the bundle's refiner takes over.
    Picture i of `count` has the seed `seed + i`, unless the host draws all from one stream. Only
    picture `number` of them, from 1, is drawn if it is given.
    """

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    count: int
    host: str = "diffusers"
    rng: str | None = None
    tokenizer: str | None = None
    spacing: str | None = None
    karras: bool | None = None
    image: str | None = None
    strength: float | None = None
    mask: str | None = None
    control: tuple[Control, ...] | None = None
    refiner: float | None = None
    number: int | None = None

    @property
    def numbers(self) -> range:
        """Returns the numbers of the pictures that are drawn, from 1."""
        if self.number is None:
            return range(1, self.count + 1)
        return range(self.number, self.number + 1)

    def settings(self) -> dict[str, Any]:
        """Returns the settings by name, without those that are as they are where nothing is
        said."""
        found = {f.name: value for f in fields(self)
                 if (value := getattr(self, f.name)) != f.default}
        if self.control:
            found["control"] = ",".join(map(str, self.control))
        return found
