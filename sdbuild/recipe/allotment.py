"""The part of a recipe that says how many bits each weight of a network gets: a budget, by which
calibration allots them, or a bit recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.families import Component
from sdbuild.recipe.bits import Bits, read_named
from sdbuild.recipe.sources import absolute_place

_DENOISER_BUDGETS = ("size_mb", "quality")
"""Fields that are budgets of the U-Net alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """The goal by which bits are allotted; all None where every weight of a network gets the same.

    `average_bits` hold for all networks with palettes, `size_mb` and `quality_db` for the U-Net.
    The bit recipe `bits` takes the place of an allocation.
    """

    average_bits: float | None
    size_mb: float | None
    quality_db: float | None
    bits: Bits | None

    def __str__(self) -> str:
        named = {"size_mb": self.size_mb, "quality": self.quality_db, "quant": self.average_bits}
        given = [f"{name}={value:g}" for name, value in named.items() if value is not None]
        return "bits" if self.bits is not None else given[0] if given else "equal bits"

    @property
    def of_unet(self) -> bool:
        """Whether it is about the weights of the U-Net in particular."""
        return (self.size_mb is not None or self.quality_db is not None
                or (self.bits is not None and "unet" in self.bits))

    @property
    def is_calibrated(self) -> bool:
        """Whether tables and indices are found by calibration; with a bit recipe, only where
        `quant` has a point."""
        return self.bits is None or self.average_bits is not None

    @classmethod
    def of(cls, fields: Mapping[str, Any], words: Mapping[str, str], folder: Path) -> Allotment:
        """Returns the allotment in a recipe's fields.

        Args:
            folder: the recipe's, to which its paths are relative.

        Raises:
            RecipeError: two budgets, or a bit recipe that is none.
        """
        given = [name for name in (*_DENOISER_BUDGETS, "bits") if fields[name] is not None]
        if len(given) > 1:
            raise RecipeError(f"{given[0]} and {given[1]}: expected one of them",
                              hint="each says how many bits weights get")
        quant = fields["quant"]
        place = fields["bits"] and absolute_place("bits", fields["bits"], words, folder)
        return cls(
            average_bits=quant if isinstance(quant, float) else None,
            size_mb=fields["size_mb"], quality_db=fields["quality"],
            bits=read_named(place, "bits") if place else None,
        )

    def budget_of(self, component: Component, weights: str) -> dict[str, Any] | None:
        """Returns what a component's bits are allotted by; None if by nothing.

        Args:
            weights: the name of the component whose weights it has.
        """
        if self.bits is not None:
            found = self.bits.get(weights)
            return None if found is None else {"bits": dict(found)}
        if not component.reads_tokens and self.size_mb is not None:
            return {"size_bytes": int(self.size_mb * 1_000_000)}
        if not component.reads_tokens and self.quality_db is not None:
            return {"quality_db": self.quality_db}
        return None if self.average_bits is None else {"average_bits": self.average_bits}
