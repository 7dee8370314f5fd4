"""Bit recipes: how many bits each weight of each network gets, by the names of parameters.

    {"schema": 1, "components": {"unet": {"conv_in.weight": 8, "conv_out.weight": 16, "*": 4}}}

They hold for every checkpoint of an architecture. 16 leaves a weight as it is, and `*` stands for
all that are not named. What Apple's `mixed_bit_compression_pre_analysis` writes is read, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import Fields, json_file, shown
from sdbuild.base.paths import outside_path
from sdbuild.base.suggestions import did_you_mean

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


REST = "*"
"""The name that stands for all weights without bits of their own."""

UNPACKED = 16
"""The bits of a weight that is left as it is."""

_NUMBER = re.compile(r"[1-7](\.\d+)?|8(\.0+)?")
_ANALYZED = "unet"
"""The component that Apple's analysis is of."""


def read_named(place: str, where: str) -> dict[str, dict[str, int]]:
    """Returns the bit recipe at `FILE`, or at `FILE:NAME` of several in one file.

    Raises:
        RecipeError: the file is none, or has several and none is named.
    """
    path = outside_path(place, where)
    name = ""
    file, colon, rest = place.rpartition(":")
    if colon and file and not path.exists():
        path, name = outside_path(file, where), rest
    if _NUMBER.fullmatch(path.name) and not path.exists():
        raise RecipeError(
            f"{path}: no such file",
            hint=f"{where} is the file of a bit recipe; quant={float(path.name)} gives weights "
                 f"{path.name} bits on average; with --matrix, several: quant=3.0,4.0")
    return read_bits(path, name)


def read_bits(path: Path, name: str = "") -> dict[str, dict[str, int]]:
    """Returns the bits of each parameter in a bit recipe, in the manifest of a bundle, or in a
    recipe of Apple's analysis, by component.

    Args:
        name: which recipe of an analysis; the only one if empty.

    Raises:
        RecipeError: the file is none, or has no such recipe.
    """
    found = Fields(json_file(path, RecipeError), str(path), RecipeError)
    if "recipes" in found.values and "components" not in found.values:
        return {_ANALYZED: _of_analysis(found.fields("recipes"), name)}
    if name:
        raise RecipeError(f"{path}: one bit recipe, and {shown(name)} is asked for",
                          hint=f"bits={path}")
    if "components" in found.values and "bits" in found.values:
        found = found.fields("bits")
    found.integer("schema", low=SCHEMA, high=SCHEMA)
    components = found.fields("components")
    return {name: _bits(components.fields(name)) for name in components.values}


def _bits(fields: Fields) -> dict[str, int]:
    allowed = (*PALETTE_BITS, UNPACKED)
    bits = {name: fields.integer(name, low=1, high=UNPACKED) for name in fields.values}
    for name, found in bits.items():
        if found not in allowed:
            raise RecipeError(f"{fields.where}: {name} is {found}, expected one of "
                              f"{', '.join(map(str, allowed))}")
    return bits


def _of_analysis(recipes: Fields, name: str) -> dict[str, int]:
    """Returns a recipe of Apple's analysis, which names modules and leaves out small ones."""
    names = list(recipes.values)
    if not name and len(names) == 1:
        name = names[0]
    if name not in names:
        found = f"no recipe {shown(name)}{did_you_mean(name, names)}" if name \
            else f"{len(names)} recipes, expected the name of one"
        raise RecipeError(f"{recipes.where}: {found}",
                          hint=f"bits=FILE:NAME, where NAME is one of: {', '.join(names)}")
    bits = {f"{module}.weight": found for module, found in _bits(recipes.fields(name)).items()}
    return bits | {REST: UNPACKED}


def encoded(components: Bits) -> dict[str, object]:
    """Returns a bit recipe as it is written."""
    return {"schema": SCHEMA, "components": {name: dict(bits) for name, bits in
                                             sorted(components.items())}}
