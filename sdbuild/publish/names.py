"""Names of bundles in a repository, as apps and guides expect them.

Source:
    Repositories of apple, coreml-community and coreml-projects, as they are called and laid out;
    huggingface/swift-coreml-diffusers at a561fae, `ModelInfo.swift`, for the zips.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.recipe.recipe import Recipe

_SIDES_PX = {"sd": 512, "sdxl": 1024, "sdxl-refiner": 1024, "sd3": 1024}
COMPILED = "compiled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A bundle among others of its repository. `nbits` are those of its U-Net, None for fp16;
    `activations` those of its U-Net's activations. One that `has_bit_recipe` has no such number."""

    family: str
    attention: str
    width_px: int
    height_px: int
    nbits: int | None
    has_bit_recipe: bool = False
    activations: int | None = None
    has_controlnets: bool

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Variant:
        """Returns the variant that a bundle's manifest describes."""
        components = manifest["components"]
        bits = [entry.get("nbits") for entry in components.values() if entry.get("nbits")]
        return cls(
            family=manifest["family"], attention=manifest["attention"],
            width_px=manifest["width_px"], height_px=manifest["height_px"],
            nbits=max(bits) if bits else None,
            has_bit_recipe=any("bits" in step.get("params", {}).get("budget", {})
                               for step in manifest.get("made_from", ())),
            activations=next((entry["activations"] for entry in components.values()
                              if entry.get("activations")), None),
            has_controlnets=any(name.startswith("controlnet/") for name in components),
        )

    @classmethod
    def planned(cls, recipe: Recipe) -> Variant:
        """Returns the variant that a recipe's bundle will be."""
        bits = [recipe.packaging.nbits_of(component) or 0 for component in recipe.components]
        return cls(
            family=recipe.family.name, attention=recipe.network.attention,
            width_px=recipe.network.width_px, height_px=recipe.network.height_px,
            nbits=max(bits, default=0) or None,
            has_bit_recipe=any("bits" in (recipe.packaging.budget_of(component) or ())
                               for component in recipe.components),
            activations=next(filter(None, map(
                recipe.packaging.activations_of, recipe.components)), None),
            has_controlnets=any(component.instance for component in recipe.components),
        )

    @property
    def place(self) -> tuple[str, str, str, bool]:
        """All that tells its folder from those of other variants."""
        return self.attention, self.size_word, self.bits_word, self.has_controlnets

    @property
    def bits_word(self) -> str:
        """The word for the bits of its weights."""
        if self.activations:
            return f"w{self.nbits}a{self.activations}"
        if self.has_bit_recipe:
            return "bits"
        return f"{self.nbits}bit" if self.nbits else "fp16"

    @property
    def size_word(self) -> str:
        """The word for its size, width first."""
        return f"{self.width_px}x{self.height_px}"


def folder_of(variant: Variant, taken: Mapping[str, str]) -> str:
    """Returns the folder of a variant: the shortest that no other variant has.

    Args:
        taken: the bits of those that are there, by folder.
    """
    side = _SIDES_PX.get(variant.family)
    words = [] if variant.width_px == variant.height_px == side else [variant.size_word]
    for more in ([], [variant.bits_word]):
        middle = "_".join([*words, *more, *(["cn"] if variant.has_controlnets else [])])
        folder = "/".join(filter(None, (variant.attention, middle, COMPILED)))
        if taken.get(folder, variant.bits_word) == variant.bits_word:
            return folder
    return folder


def zip_of(repository: str, folder: str) -> str:
    """Returns the zip of a variant: beside the card, as apps look for it, or in its folder, if it
    is none that apps know of."""
    attention, *middle, _ = folder.split("/")
    if not middle:
        return f"{repository}_{attention}_{COMPILED}.zip"
    name = repository.removeprefix("coreml-").removesuffix("-palettized")
    return f"{attention}/{middle[0]}/{name}_{attention}_{middle[0]}.zip"


def net_of(variant: Variant, model: str) -> str:
    """Returns the name of a ControlNet in its zip: its size in hundreds of pixels, width first."""
    split = "" if variant.attention == "original" else "-SE"
    return f"{model}-{variant.width_px // 100}x{variant.height_px // 100}{split}"


def chosen(folders: Collection[str], wanted: str | None) -> list[str]:
    """Returns the folders that a word for a variant fits: all if there is none."""
    if wanted is None:
        return sorted(folders)
    word = wanted.strip("/")
    exact = [f for f in folders if f in (word, f"{word}/{COMPILED}")]
    return exact or sorted(f for f in folders if word in f.split("/")
                           or set(word.split("_")) <= set(f.split("/")[1].split("_"))
                           or f.startswith(f"{word}/"))
