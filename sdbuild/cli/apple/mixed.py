"""`sdbuild mixed-bit-compression-apply`: a package of any name, with the bits of Apple's
analysis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import MILError
from sdbuild.base.machine import processors
from sdbuild.base.paths import outside_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import counted, several, size
from sdbuild.cli.apple.flags import Given
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.bits import REST, UNPACKED, read_bits

if TYPE_CHECKING:
    from sdbuild.mil.compress.assigned import Choice
    from sdbuild.mil.compress.packed_weights import Task

_AFTER = re.compile(r"(?<=_weight)(_to_fp16)?(_\d+)?$")
"""The end that coremltools gives the name of a weight: that it was rounded, and a number where
names met."""


def mix(flags: Given, say: Callable[[str], None]) -> int:
    """Writes the package with palettes of the bits that a recipe of an analysis gives each weight.

    Raises:
        RecipeError: the analysis has no such recipe.
        MILError: the package has no weight of a name in it, or two.
    """
    from sdbuild.mil.compress.assigned import Choice, palettize_as
    from sdbuild.mil.files.validate import read_sound
    from sdbuild.quality.places import weights_of

    source = outside_path(flags.mlpackage_path, "--mlpackage-path")
    analysis = outside_path(flags.pre_analysis_json_path, "--pre-analysis-json-path")
    destination = outside_path(flags.o, "-o")
    if destination.suffix != PACKAGE:  # as coremltools saves it
        destination = destination.with_name(destination.name + PACKAGE)
    (bits,) = read_bits(analysis, flags.selected_recipe).values()
    if not source.is_dir():
        raise MILError(f"{source}: there is no such package")
    _, tasks = weights_of(read_sound(source), ())
    found = bits_of([task.name for task in tasks], bits, source)

    def choose(task: Task) -> Choice | None:
        count = found.get(task.name, UNPACKED)
        return None if count == UNPACKED else Choice(bits=count)

    made = palettize_as(source, destination, choose, workers=processors())
    for count in sorted({tensor.bits for tensor in made}):
        some = [tensor for tensor in made if tensor.bits == count]
        say(f"{count:>2} bits: {counted(len(some), 'weight')}, "
            f"{size(sum(tensor.bytes_after for tensor in some))}")
    say(f"16 bits: {counted(len(tasks) - len(made), 'large weight')}")
    return 0


def bits_of(constants: Iterable[str], bits: Mapping[str, int], where: Path) -> dict[str, int]:
    """Returns the bits of constants that are named after parameters:
    `unet_conv_in_weight_to_fp16` after `conv_in.weight`.

    Raises:
        MILError: a parameter has no constant, or several; or two have the same.
    """
    ends = {name: f"_{name.replace('.', '_')}" for name in bits if name != REST}
    names = {constant: f"_{_AFTER.sub('', constant)}" for constant in constants}
    matches = {parameter: [constant for constant, name in names.items() if name.endswith(end)]
               for parameter, end in ends.items()}
    lost = [name for name, found in matches.items() if not found]
    if lost:
        known = [name.removeprefix("_") for name in names.values()]
        said = several([name + did_you_mean(name.replace(".", "_"), known) for name in lost])
        raise MILError(f"{where}: {counted(len(lost), 'name')} of the recipe are of no weight that "
                       f"can be palettized: {said}",
                       hint="the analysis is of another network, or its weights are palettized "
                            "already; sdbuild mil weights PACKAGE lists them")
    taken: dict[str, str] = {}
    for name, found in matches.items():
        if len(found) > 1 or found[0] in taken:
            others = found if len(found) > 1 else [taken[found[0]], name]
            raise MILError(f"{where}: which weight {name} is, is ambiguous: {several(others)}",
                           hint="a bit recipe for a checkpoint is exact: sdbuild build bits=FILE")
        taken[found[0]] = name
    return {constant: bits[name] for constant, name in taken.items()}
