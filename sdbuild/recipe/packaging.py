"""The part of a recipe that says how networks are packaged: palettes, activations, chunks, target,
compiler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.base import apple
from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.families import Component, Family
from sdbuild.families.nouns import chunk_names
from sdbuild.recipe.allotment import Allotment
from sdbuild.recipe.bits import PALETTE_BITS, palette_bits
from sdbuild.recipe.components import CONTROLLED, known_components
from sdbuild.recipe.fields import PACKAGES, TARGETS

_OBSERVED = "unet"
"""The component whose activations are quantized."""

_WEIGHT_BITS = 8
"""Of weights beside quantized activations: integers of both are multiplied with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaging:
    """The settings with which networks of a bundle are converted, compressed, cut and compiled.

    `nbits` are those of the weights of the components in `palettized`, None for fp16; `allotment`
    says which of these give each weight bits of its own. Of equal bits, `mixed` are the exceptions,
    by component and pattern of names, and `group_size` the output channels that share a table, all
    if it is None. `activations` are the bits of the U-Net's activations, None for fp16. `notes` say
    what came of a choice that was left to this machine.
    """

    nbits: int | None
    allotment: Allotment
    palettized: frozenset[str]
    mixed: tuple[tuple[str, str, int], ...]
    group_size: int | None
    activations: int | None
    chunks: int
    target: str
    lower: str
    compiler: str
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, fields: Mapping[str, Any], family: Family, allotment: Allotment
    ) -> Packaging:
        """Returns the packaging in a recipe's fields.

        Raises:
            RecipeError: two of them do not go together, or palettes are asked for a component that
                the family does not have.
        """
        wanted = fields["palettize"]
        palettized = [c for c in family.components if c.is_palettized] if wanted is None \
            else known_components(wanted, family)
        quant = fields["quant"]
        found = cls(
            nbits=None if quant is None else int(quant), allotment=allotment,
            palettized=frozenset(c.name for c in palettized),
            mixed=fields["mixed"] or (), group_size=fields["group_size"],
            activations=fields["activations"],
            chunks=fields["chunk"], target=TARGETS[fields["target"]], lower=fields["lower"],
            compiler=apple.compiler(fields["compiler"]),
            notes=apple.compiler_notes(fields["compiler"]),
        )
        found._check_palettes(quant)
        return found

    def _check_palettes(self, quant: int | float | None) -> None:
        """Makes sure that the target has the palettes.

        Raises:
            RecipeError: it has no such bits or groups, or what they are of has no equal bits.
        """
        asked = {f"mixed={of}.{pattern}:{bits}": bits for of, pattern, bits in self.mixed}
        if isinstance(quant, int):
            asked[f"quant={quant}"] = quant
        for word, bits in asked.items():
            if bits not in palette_bits(self.target):
                raise RecipeError(f"{word} with target={self.target}: palettes of {bits} bits came "
                                  "with iOS 18", hint="use target=iOS18, or 4 bits")
        if self.group_size is not None and self.target != "iOS18":
            raise RecipeError(f"group_size={self.group_size} with target={self.target}: several "
                              "tables for a weight came with iOS 18", hint="use target=iOS18")
        for component, pattern, bits in self.mixed:
            if component not in self.palettized:
                raise RecipeError(
                    f"mixed={component}.{pattern}:{bits}: {component} has no palettes"
                    f"{did_you_mean(component, self.palettized)}",
                    hint=f"components with palettes: {', '.join(sorted(self.palettized)) or '-'}")
        if (self.mixed or self.group_size) and (self.nbits is None or str(self.allotment) !=
                                                "equal bits"):
            name = "mixed" if self.mixed else "group_size"
            raise RecipeError(f"{name} with {self.allotment if self.nbits else 'quant=none'}: it "
                              "changes palettes of equal bits", hint="use quant=6, or omit it")

    def check_activations(
        self, components: Collection[Component], family: Family, sizes: int
    ) -> None:
        """Makes sure that the activations can be quantized that a recipe wants to be.

        Args:
            sizes: the number of image sizes, each with a function in the models.

        Raises:
            RecipeError: the target has no quantized activations, there is no U-Net that can be
                observed, or another field is about the bits of its weights.
        """
        if self.activations is None:
            return
        word, names = f"activations={self.activations}", {c.name for c in components}
        if self.target == "iOS16":
            raise RecipeError(f"{word} with target={self.target}: quantized activations came with "
                              "iOS 17", hint="use target=iOS17")
        if _OBSERVED not in family.drawing:
            raise RecipeError(f"{word} for {family.title}: only activations of a U-Net that "
                              "generates images by itself are quantized",
                              hint="leave activations out")
        needed = [c.name for c in family.components
                  if c.name == _OBSERVED or (c.reads_tokens and c.name in family.drawing)]
        if missing := [name for name in needed if name not in names]:
            raise RecipeError(f"{word}: components lacks {', '.join(missing)}",
                              hint="activations are observed while images are generated: build "
                                   f"{', '.join(needed)}, or leave activations out")
        if CONTROLLED in names:
            raise RecipeError(f"{word} with controlnet: a U-Net for ControlNets is not observed",
                              hint="leave activations out, or build without ControlNets")
        if self.lower == PACKAGES:
            raise RecipeError(f"{word} with lower={self.lower}: activations are observed while the "
                              "checkpoint generates images",
                              hint="build from the checkpoint that the packages were made from")
        if sizes > 1:
            raise RecipeError(f"{word} with {sizes} sizes: activations of united models are not "
                              "observed", hint="build a bundle for each size")
        given = [f"mixed={of}.{pattern}:{bits}" for of, pattern, bits in self.mixed
                 if of == _OBSERVED]
        if self.allotment.of_unet:
            given.append(str(self.allotment))
        if given:
            raise RecipeError(f"{word} with {given[0]}: the U-Net's weights have {_WEIGHT_BITS} "
                              "bits beside quantized activations", hint="use one of them")

    @property
    def is_lowered_once(self) -> bool:
        """Whether one lowered program serves all checkpoints of an architecture."""
        return self.lower in ("once", "here")

    def check_allotted(self, components: Collection[Component], sizes: int) -> None:
        """Makes sure that weights can have bits of their own, where they are to have them.

        Args:
            sizes: the number of image sizes, each with a function in the models.

        Raises:
            RecipeError: names the component whose weights cannot.
        """
        for component in components:
            if self.budget_of(component) is None:
                continue
            if sizes > 1:
                raise RecipeError(
                    f"{self.allotment} with {sizes} sizes: weights of united models have equal "
                    "bits", hint="use quant=6, or build a bundle for each size")
            if not self.is_lowered_once:
                raise RecipeError(f"{self.allotment} with lower={self.lower}: which parameter a "
                                  "weight is, only a lowered program says", hint="use lower=once")
            if self.is_calibrated(component) and not (
                    component.reads_tokens or component.name == "unet"):
                raise RecipeError(
                    f"{self.allotment}: {component.name} cannot be calibrated",
                    hint="use equal bits, quant=6, or bits=FILE with the bit recipe of another "
                         "bundle")

    def nbits_of(self, component: Component) -> int | None:
        """Returns the bits of the component's weights, or None for fp16. Of one whose weights have
        bits of their own, the whole ones on average where these are known, else the most."""
        if self.activations_of(component):
            return _WEIGHT_BITS
        if _weights(component) not in self.palettized:
            return None
        budget = self.allotment.budget_of(component, _weights(component))
        return self.nbits if budget is None or "average_bits" in budget else max(PALETTE_BITS)

    def activations_of(self, component: Component) -> int | None:
        """Returns the bits of the component's activations, or None for fp16."""
        return self.activations if component.name == _OBSERVED else None

    def mixed_of(self, component: Component) -> dict[str, int]:
        """Returns the bits of the component's weights that have others than `nbits_of`, by pattern
        of names."""
        name = _weights(component)
        return {pattern: bits for of, pattern, bits in self.mixed if of == name}

    def budget_of(self, component: Component) -> dict[str, Any] | None:
        """Returns what the bits of the component's weights are allotted by; None if they all have
        the same."""
        budget = self.allotment.budget_of(component, _weights(component))
        is_palettized = self.nbits_of(component) and not self.activations_of(component)
        return budget if is_palettized else None

    def is_calibrated(self, component: Component) -> bool:
        """Whether the component's palettes are chosen by calibration."""
        return self.budget_of(component) is not None and self.allotment.is_calibrated

    def needs_prompts(self, component: Component) -> bool:
        """Whether the component is calibrated or observed while images of prompts are made."""
        return self.is_calibrated(component) or self.activations_of(component) is not None

    def chunks_of(self, component: Component) -> int:
        """Returns the number of models that the component is split into."""
        return self.chunks if component.takes("chunk") else 1

    def model_names(self, component: Component) -> list[str]:
        """Returns the names of the component's models, without extensions, in the order they run
        in."""
        return chunk_names(component.bundle_name, self.chunks_of(component))

    def is_palettized(self, components: Collection[Component]) -> bool:
        """Whether any of the components has palettes."""
        return any(self.nbits_of(component) for component in components)

    @property
    def quant_word(self) -> str:
        """The word for its weights in its variant's name."""
        bits = self.allotment.average_bits or self.nbits
        palettized = self.palettized - ({_OBSERVED} if self.activations else set())
        words = [f"{bits}bit"] if bits and palettized else []
        if palettized & (self.allotment.bits or {}).keys():
            words = ["bits"]  # those of a file, of which no number is told
        if self.activations:
            words.append(f"w{_WEIGHT_BITS}a{self.activations}")
        return "-".join(words) or "fp16"

    @property
    def chunks_word(self) -> str:
        """The word for its chunks in its variant's name; empty if it has none."""
        return f"-{self.chunks}chunks" if self.chunks > 1 else ""


def _weights(component: Component) -> str:
    """Returns the name of the component whose weights it has."""
    return "unet" if component.name == CONTROLLED else component.name
