"""Bit recipes: how many bits each weight of each network gets, by the names of parameters.

    {"schema": 1, "components": {"unet": {"conv_in.weight": 8, …}}}

They hold for every checkpoint of an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import Fields, json_file

SCHEMA = 1
"""The version of bit recipes."""

BITS = "bits.json"
"""The name of the file that an allocation writes."""

PALETTE_BITS = (1, 2, 3, 4, 6, 8)
"""The numbers of bits of an index that Core ML has."""

_OF_IOS_18 = 3

Bits = Mapping[str, Mapping[str, int]]
"""The bits of each parameter, by component."""


def palette_bits(target: str) -> tuple[int, ...]:
    """Returns the numbers of bits that a deployment target has; 3 came with iOS 18."""
    return tuple(bits for bits in PALETTE_BITS if bits != _OF_IOS_18 or target == "iOS18")


def read_bits(path: Path) -> dict[str, dict[str, int]]:
    """Returns the bits of each parameter in a bit recipe, or in the manifest of a bundle, by
    component.

    Raises:
        RecipeError: the file is none.
    """
    found = Fields(json_file(path, RecipeError), str(path), RecipeError)
    if "components" in found.values and "bits" in found.values:
        found = found.fields("bits")
    found.integer("schema", low=SCHEMA, high=SCHEMA)
    components = found.fields("components")
    return {name: _bits(components.fields(name)) for name in components.values}


def _bits(fields: Fields) -> dict[str, int]:
    bits = {name: fields.integer(name, low=1, high=8) for name in fields.values}
    for name, found in bits.items():
        if found not in PALETTE_BITS:
            raise RecipeError(f"{fields.where}: {name} is {found}, expected one of "
                              f"{', '.join(map(str, PALETTE_BITS))}")
    return bits


def encoded(components: Bits) -> dict[str, object]:
    """Returns a bit recipe as it is written."""
    return {"schema": SCHEMA, "components": {name: dict(bits) for name, bits in
                                             sorted(components.items())}}
