"""The families of models, as data: a page each, with its components, ports and names in a bundle.

The only place that says what a component is called and what goes in and out of it. Nothing here
reads a file or builds a network.
"""

from sdbuild.families.nouns import Component, Dims, Family, Floor, Port
from sdbuild.families.stable_diffusion import CHECKED_PX, STABLE_DIFFUSION, TOKENS
from sdbuild.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from sdbuild.families.stable_diffusion_xl import STABLE_DIFFUSION_XL, STABLE_DIFFUSION_XL_REFINER

FAMILIES = {family.name: family for family in (
    STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_XL_REFINER, STABLE_DIFFUSION_3,
)}

__all__ = ["CHECKED_PX", "FAMILIES", "STABLE_DIFFUSION", "STABLE_DIFFUSION_3",
           "STABLE_DIFFUSION_XL", "STABLE_DIFFUSION_XL_REFINER", "TOKENS", "Component", "Dims",
           "Family", "Floor", "Port"]
