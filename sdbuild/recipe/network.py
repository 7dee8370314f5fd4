"""The part of a recipe that says which networks are built: sizes, layout, what they predict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.families import Component, Family
from sdbuild.families.nouns import Setting, size_name, size_text

_HELD: Mapping[str, tuple[Setting, str]] = {
    "attention": ("attention", "its transformer has one layout of attention, for CPU and GPU"),
    "clip_skip": ("clip_skip", "it takes the embedding of the last layer but one, always"),
    "distilled_guidance": ("prediction", "its transformer takes no guidance as an input"),
    "embedding": ("embedding", "its third text encoder has another tokenizer, which learns no "
                               "words"),
    "prediction": ("prediction", "its transformer gives velocity, which is what apps expect"),
    "prediction_type": ("prediction", "its transformer predicts velocity, always"),
}
"""The fields that do not hold for each family: the setting that each is, and why a family may not
have it."""
_USUAL = {"attention": "original", "clip_skip": 1, "prediction": "epsilon"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The settings that determine the networks of a bundle, besides their architectures.

    `sizes` are those of a bundle that has several, in which each model has a function for each;
    empty for one of a single size. `width_px` and `height_px` are the first of them.
    `distilled_guidance` is for U-Nets that were trained to take it as an input, None for the usual.
    `clip_skip` is the layer of the text encoder that gives the embedding, from the last one, 1.
    """

    width_px: int
    height_px: int
    batch: int
    prediction: str
    attention: str
    distilled_guidance: float | None
    clip_skip: int = 1
    sizes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any], family: Family) -> Network:
        """Returns the networks in a recipe's fields.

        Raises:
            RecipeError: no host sends the family's denoiser such a batch, or its networks have no
                such setting or size.
        """
        if fields["batch"] not in family.batches:
            raise RecipeError(
                f"batch={fields['batch']} for {family.title}, expected "
                f"{' or '.join(map(str, family.batches))}",
                hint="hosts send two samples at a time, whatever the guidance", field="batch")
        _check_held(fields, family)
        _check_sides(fields["size"], family)
        sizes = fields["size"]
        width_px, height_px = sizes[0]
        return cls(width_px=width_px, height_px=height_px, batch=fields["batch"],
                   prediction=fields["prediction"], attention=fields["attention"],
                   distilled_guidance=fields["distilled_guidance"],
                   clip_skip=fields["clip_skip"],
                   sizes=sizes if len(sizes) > 1 else ())

    def at(self, size: tuple[int, int]) -> Network:
        """Returns the networks of one of its sizes."""
        return replace(self, width_px=size[0], height_px=size[1])

    def sizes_of(self, component: Component) -> tuple[tuple[int, int], ...]:
        """Returns the sizes that the component's models have functions for; none if they have one
        for all."""
        return self.sizes if "width_px" in component.sizes else ()

    def function_of(self, component: Component) -> str:
        """Returns the function for its width and height; empty if the models have a single one."""
        return size_name(self.width_px, self.height_px) if self.sizes_of(component) else ""

    def attention_of(self, component: Component) -> str:
        """Returns the layout of the component's attention."""
        return self.attention if component.takes("attention") else "original"

    def params_of(self, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the component's network; others are left out,
        so that variants which differ in it share the network's steps."""
        found: dict[str, Any] = {name: getattr(self, name) for name in component.sizes}
        if component.takes("clip_skip"):
            found |= self.encoder_params
        return found | (self.denoiser_params if component.takes("prediction") else {})

    @property
    def encoder_params(self) -> dict[str, Any]:
        """Returns what decides what a text encoder computes, where it is not as usual."""
        return {"clip_skip": self.clip_skip} if self.clip_skip > 1 else {}

    @property
    def denoiser_params(self) -> dict[str, Any]:
        """Returns what decides what a denoiser computes."""
        found: dict[str, Any] = {"prediction": self.prediction}
        if self.distilled_guidance is not None:
            found["distilled_guidance"] = self.distilled_guidance
        return found

    @property
    def words(self) -> str:
        """The words of its variant's name."""
        return f"{'_'.join(map(size_text, self.all_sizes))}-{self.attention}"

    @property
    def all_sizes(self) -> tuple[tuple[int, int], ...]:
        """Its sizes, also if it is a single one."""
        return self.sizes or ((self.width_px, self.height_px),)


def _check_held(fields: Mapping[str, Any], family: Family) -> None:
    """Refuses settings that hold for none of a family's components, as nothing would come of them.

    Raises:
        RecipeError: names the first of them.
    """
    for name, (setting, reason) in _HELD.items():
        usual = _USUAL.get(name)
        if fields[name] and fields[name] != usual and not family.takes(setting):
            given = name if usual is None else f"{name}={fields[name]}"
            raise RecipeError(
                f"{given} for {family.title}, expected {usual or 'none'}", hint=reason)


def _check_sides(sizes: Iterable[tuple[int, int]], family: Family) -> None:
    """Refuses sizes that the family's networks cannot have.

    Raises:
        RecipeError: names the first of them, and the next that they can have.
    """
    for size in sizes:
        if any(side % family.side_px for side in size):
            nearest = size_text((_nearest(size[0], family), _nearest(size[1], family)))
            raise RecipeError(
                f"size={size_text(size)} for {family.title}, expected multiples of "
                f"{family.side_px}", hint=f"its transformer takes patches of {family.side_px} "
                f"pixels: size={nearest}")


def _nearest(side_px: int, family: Family) -> int:
    """Returns the least side from this one on that the family's networks can have."""
    return -(-side_px // family.side_px) * family.side_px
