"""The components of a bundle: those of a family that a recipe names, and its ControlNets."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.checkpoints import is_hub
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.families import Component, Family

CONTROLNET = "controlnet"
CONTROLLED = "controlled_unet"


def known_components(wanted: Collection[str], family: Family) -> tuple[Component, ...]:
    """Returns the family's components of these names, in the family's order.

    Raises:
        RecipeError: it has no component of a name.
    """
    known = [component.name for component in family.components]
    for name in wanted:
        if name not in known and "multilingual" in name:
            raise RecipeError(f"component {name!r}: a multilingual projection is not converted",
                              hint="leave it out; Apple's script converts one on a Mac, and "
                                   "sdbuild contract checks it in a bundle's folder")
        if name not in known:
            raise RecipeError(
                f"unknown component {name!r}{did_you_mean(name, known)}",
                hint=f"the components of {family.title} are: {', '.join(known)}",
            )
    return tuple(component for component in family.components if component.name in wanted)


def with_controlnets(
    components: tuple[Component, ...], names: Collection[str], family: Family
) -> tuple[Component, ...]:
    """Returns the components, with those that ControlNets of these names need: each net, and the
    U-Net that takes what they give. A recipe may leave out the U-Net that takes nothing.

    Raises:
        RecipeError: the family has no ControlNets, or a recipe names one without saying which.
    """
    if any(component.name == CONTROLNET for component in components):
        raise RecipeError(f"components has {CONTROLNET}, and which one is not said",
                          hint="controlnet=PLACE adds a ControlNet, from a folder, a file or "
                               "hub:owner/name")
    if not names:
        return components
    if CONTROLNET not in {component.name for component in family.components}:
        raise RecipeError(f"controlnet: there are no ControlNets of {family.title}",
                          hint="leave controlnet out, or build a model of Stable Diffusion 1.x, "
                               "2.x or XL")
    net = family.component(CONTROLNET)
    nets = tuple(replace(net, instance=name, bundle_name=f"{CONTROLNET}/{name}") for name in names)
    wanted = {component.name for component in components} | {CONTROLLED}
    return known_components(wanted, family) + nets


def controlnet_name(place: str) -> str:
    """Returns the name of the ControlNet of a repository, a folder or a file.

    Source:
        apple/ml-stable-diffusion at e12202c, `torch2coreml.py`, `bundle_resources_for_swift_cli`.
    """
    if is_hub(place):
        name = place.partition(":")[2].partition("@")[0]
    else:
        name = place.rstrip("/").rpartition("/")[2].removesuffix(SUFFIX)
    return "".join(word.title() for word in re.split(r"[^0-9A-Za-z]+", name))
