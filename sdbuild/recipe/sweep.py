"""Sweeps: one recipe with several bits, for the curve of quality over size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.recipe import values
from sdbuild.recipe.bits import palette_bits
from sdbuild.recipe.fields import Field, parse

if TYPE_CHECKING:
    from sdbuild.recipe.recipe import Recipe


def _entries(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ValueError("bits with commas between them, each once: 3,4,5,6")
    return found


BITS_FIELD = Field(
    name="bits", parse=_entries, default="3,4,5,6", unit="N,…",
    meaning="a list of bits to try: N equal bits, if Core ML has palettes of N, and N on average; "
    "4.5 on average alone; FILE those of a bit recipe")

VARIED = ("quant", "size_mb", "quality", "bits")
"""Fields of recipes that a sweep sets itself."""

EQUAL, AVERAGE, GIVEN = "equal bits", "bits found by calibration", "bit recipes"
"""The lines of the curve."""

_NUMBER = re.compile(r"\d+(\.\d*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A bundle of a sweep: the line that it is on, its label, and the word that asks for it."""

    series: str
    label: str
    words: Mapping[str, str]


def points(recipe: Recipe, text: str) -> list[Point]:
    """Returns the bundles to build of a recipe for `bits=…`, line by line.

    Raises:
        RecipeError: a value that is not allowed, or twice; a recipe with a budget of its own.
    """
    budget = recipe.packaging.allotment
    if budget.size_mb is not None or budget.quality_db is not None or budget.bits is not None:
        raise RecipeError(f"sweep: the recipe gives weights bits by {budget}",
                          hint="omit that in the recipe: a sweep tries several bits")
    target = recipe.packaging.target
    found = [point for entry in parse(BITS_FIELD, text, "sweep")
             for point in _points(entry, target)]
    labels = [point.label for point in found]
    for label in labels:
        if labels.count(label) > 1:
            raise RecipeError(f"sweep: bits={text} is {label} twice", hint="omit one of them")
    return sorted(found, key=lambda point: (EQUAL, AVERAGE, GIVEN).index(point.series))


def _points(entry: str, target: str) -> Iterator[Point]:
    """Yields the bundles of a number of bits, or of a bit recipe."""
    if not _NUMBER.fullmatch(entry):
        yield Point(series=GIVEN, label=f"bits={entry}", words={"bits": entry})
        return
    try:
        average = values.nbits(entry if "." in entry else f"{entry}.0")
    except ValueError:
        raise RecipeError(f"sweep: bits has {shown(entry)}, expected bits from 1 to 8, or the file "
                          "of a bit recipe", hint="sdbuild sweep bits=3,4,5,6") from None
    if "." not in entry and average in palette_bits(target):
        yield _quant(EQUAL, entry)
    yield _quant(AVERAGE, str(average))


def _quant(series: str, bits: str) -> Point:
    return Point(series=series, label=f"quant={bits}", words={"quant": bits})
