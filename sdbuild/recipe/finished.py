"""Finished packages as the source of a recipe: the fields that they have by themselves, and those
that do not hold for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import BundleError, RecipeError, SourceError
from sdbuild.checkpoints import open_checkpoint
from sdbuild.checkpoints.packages import Packages
from sdbuild.families import FAMILIES, Component
from sdbuild.recipe.fields import PACKAGES, TARGETS

if TYPE_CHECKING:
    from sdbuild.mil.files.package import Model

_OF_CHECKPOINTS = ("config", "unet", "vae", "refiner_source", "lora", "embedding",
                   "controlnet", "distilled_guidance", "clip_skip")
"""Fields that change what is converted."""
_NOTHING = (None, (), 1)
"""Values of these fields that change nothing."""


def check_fields(
    fields: Mapping[str, Any], components: Sequence[Component], own: Mapping[str, Any]
) -> None:
    """Makes sure that a recipe of finished packages has no fields that only hold for a checkpoint.

    Args:
        own: the fields that the packages have by themselves, as far as they are known.
    Raises:
        RecipeError: it has one.
    """
    if fields["lower"] != PACKAGES:
        return
    for name in _OF_CHECKPOINTS:
        if fields[name] not in _NOTHING:
            raise RecipeError(
                f"{name}: it changes what is converted, and the source is finished packages",
                hint=f"leave {name} out, or build from the checkpoint that they were made from")
    if len(fields["size"]) > 1:
        raise RecipeError("size: several, and each of the finished packages of the source has one",
                          hint="leave size out, or build from the checkpoint that they were made "
                               "from")
    kept, quant, wanted = own.get("quant"), fields["quant"] or "none", fields["palettize"]
    if wanted is None:
        wanted = [component.name for component in components if component.is_palettized]
    if kept and (quant != kept or set(own["palettize"]) - set(wanted)):
        raise RecipeError(
            f"quant={quant}: its weights have palettes of {kept} bits already, those of "
            f"{', '.join(own['palettize'])}",
            hint=f"quant={kept} palettize={','.join(own['palettize'])} keep them; for "
                 f"quant={quant}, use the packages in fp16")
    for component in components:
        if component.comes_with:
            raise RecipeError(f"components has {component.name}, which comes with "
                              f"{component.comes_with}=, and the source is finished packages",
                              hint=f"leave {component.name} out")
    if fields["prediction_type"] not in (None, "epsilon") and fields["prediction"] == "epsilon":
        raise RecipeError(
            f"prediction_type={fields['prediction_type']}: a finished U-Net cannot be turned to "
            "predict noise", hint="prediction=checkpoint says that it stays as it is")


def fields_of(packages: Packages, attention: str | None) -> dict[str, Any]:
    """Returns the family and the fields of a recipe that finished packages have by themselves.

    Args:
        attention: the layout that is asked for, `original` if there are several and none is.
    Raises:
        SourceError: a package cannot be had, or is of no family.
        RecipeError: weights are packed in a way that no recipe asks for.
    """
    from sdbuild.bundle import inferred

    layouts = packages.layouts
    chosen = attention or next(iter(layouts), "")
    models = _models(packages, chosen, packages.components(chosen))
    packages.model(f"{chosen}/unet")
    try:
        unet, folder = models["unet"], Path(packages.place)
        family = FAMILIES[inferred.family_of(unet, folder)]
        batch, _, height, width = inferred.sample_of(unet, folder)
    except BundleError as error:
        raise SourceError(error.message, hint=error.hint) from error
    components = [c.name for c in family.components if c.name in models and not c.comes_with]
    return {
        "family": family.name, "lower": PACKAGES, "components": components,
        "size": f"{width * inferred.CELL_PX}x{height * inferred.CELL_PX}", "batch": batch,
        "attention": attention or chosen or inferred.layout_of(unet),
        "target": _target({name: models[name] for name in components}, packages),
        **_quant({name: models[name] for name in components}, packages),
    }


def kept_of(
    places: Sequence[str], facts: MutableMapping[str, Any], attention: str,
    components: Sequence[str],
) -> dict[str, Any]:
    """Returns the fields of the palettes that the packages at a place come with, none if no place
    can be had: that is said where they are read.

    Args:
        facts: a cache of facts about repositories, added to.
    Raises:
        RecipeError: weights are packed in a way that no recipe asks for.
    """
    with suppress(SourceError, OSError):
        packages = open_checkpoint(places, facts)
        if isinstance(packages, Packages):
            there = set(packages.components(attention)).intersection(components)
            return _quant(_models(packages, attention, sorted(there)), packages)
    return {}


def _models(packages: Packages, attention: str, components: Iterable[str]) -> dict[str, Model]:
    """Returns the programs of components, without weights."""
    from sdbuild.mil.files.read import read_model

    found = {}
    for component in components:
        with packages.reading(f"{attention}/{component}", has_weights=False) as path:
            found[component] = read_model(path)
    return found


def _target(models: Mapping[str, Model], packages: Packages) -> str:
    """Returns the least deployment target that runs all of the programs."""
    from sdbuild.mil.compress.compress import opset_number

    needed = max(opset_number(function.opset) for model in models.values()
                 for function in model.program.functions.values())
    known = {6: "iOS16", 7: "iOS17", 8: "iOS18"}
    if needed > max(known):
        raise SourceError(f"{packages.place}: programs of opset CoreML{needed}, expected at most "
                          f"CoreML{max(known)}", hint=f"targets are: {', '.join(TARGETS)}")
    return known[max(needed, min(known))]


def _quant(models: Mapping[str, Model], packages: Packages) -> dict[str, Any]:
    """Returns the bits of palettes that there are, and the components that have them."""
    from sdbuild.mil.inspect.packed import packing

    packed = {name: found for name, model in models.items() if (found := packing(model.program))}
    if not packed:
        return {}
    ways = frozenset().union(*packed.values())
    if len(ways) > 1 or not all(isinstance(way, int) for way in ways):
        said = ", ".join(sorted(f"{way} bits" if isinstance(way, int) else way for way in ways))
        raise RecipeError(
            f"{packages.place}: its weights are compressed already, with {said}: no recipe asks "
            "for that", hint="it is finished: sdbuild generate and sdbuild contract take it as it "
                             "is; to compress it otherwise, use the packages in fp16")
    return {"quant": next(iter(ways)), "palettize": sorted(packed)}
