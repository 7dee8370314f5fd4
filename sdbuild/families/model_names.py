"""Names of models on disk: those of bundles, and of the packages that Apple's converter writes.

    UnetChunk1.mlmodelc    Stable_Diffusion_version_owner_name_unet_chunk1.mlpackage
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAMES = {
    "text_encoder": ("TextEncoder", "text_encoder"),
    "text_encoder_2": ("TextEncoder2", "text_encoder_2"),
    "unet": ("Unet", "unet"),
    "refiner": ("UnetRefiner", "refiner"),
    "controlled_unet": ("ControlledUnet", "control-unet"),
    "vae_decoder": ("VAEDecoder", "vae_decoder"),
    "vae_encoder": ("VAEEncoder", "vae_encoder"),
    "safety_checker": ("SafetyChecker", "safety_checker"),
}
"""Names of each component in a bundle, and among the packages of Apple's converter.

Source:
    apple/ml-stable-diffusion at e12202c, `torch2coreml.py`.
"""
_BUNDLED = {bundled: component for component, (bundled, _) in NAMES.items()}
_APPLES = {part: component for component, (_, part) in NAMES.items()}
_CHUNK = re.compile(r"(\w+?)(?:Chunk([12]))?")
_PACKAGE = re.compile(r"Stable_Diffusion_version_.*?_(text_encoder_2|text_encoder|vae_decoder|"
                      r"vae_encoder|control-unet|unet|refiner|safety_checker)(?:_chunk([12]))?")


class Part(NamedTuple):
    """A component, and which of its chunks; 0 is all of it."""

    component: str
    chunk: int = 0


def part_of(stem: str) -> Part | None:
    """Returns the part of a bundle that a model of this name, without its suffix, is; None if the
    name is no component's."""
    for pattern, components in ((_PACKAGE, _APPLES), (_CHUNK, _BUNDLED)):
        if (found := pattern.fullmatch(stem)) and found[1] in components:
            return Part(components[found[1]], int(found[2] or 0))
    return None
