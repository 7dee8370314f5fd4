"""The part of a recipe that says how networks are packaged: palettes, chunks, target, compiler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.base import apple
from sdbuild.base.errors import RecipeError
from sdbuild.families import Component, Family
from sdbuild.families.nouns import chunk_names
from sdbuild.recipe.components import CONTROLLED, known_components
from sdbuild.recipe.fields import TARGETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaging:
    """The settings with which networks of a bundle are converted, compressed, cut and compiled.

    `nbits` are those of the weights of the components in `palettized`, None for fp16. `notes` say
    what came of a choice that was left to this machine.
    """

    nbits: int | None
    palettized: frozenset[str]
    chunks: int
    target: str
    lower: str
    compiler: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any], family: Family) -> Packaging:
        """Returns the packaging in a recipe's fields.

        Raises:
            RecipeError: two of them do not go together, or palettes are asked for a component that
                the family does not have.
        """
        wanted = fields["palettize"]
        palettized = [c for c in family.components if c.is_palettized] if wanted is None \
            else known_components(wanted, family)
        found = cls(
            nbits=fields["quant"], palettized=frozenset(c.name for c in palettized),
            chunks=fields["chunk"], target=TARGETS[fields["target"]], lower=fields["lower"],
            compiler=apple.compiler(fields["compiler"]),
            notes=apple.compiler_notes(fields["compiler"]),
        )
        if found.nbits == 3 and found.target != "iOS18":
            raise RecipeError(
                f"quant=3 with target={found.target}: palettes of 3 bits came with iOS 18",
                hint="use target=iOS18, or quant=4",
            )
        return found

    @property
    def is_lowered_once(self) -> bool:
        """Whether a program is lowered for all checkpoints of an architecture, here or by whoever
        built sdbuild."""
        return self.lower in ("once", "here")

    def nbits_of(self, component: Component) -> int | None:
        """Returns the bits of the component's weights, or None for fp16."""
        like = "unet" if component.name == CONTROLLED else component.name  # the same weights
        return self.nbits if like in self.palettized else None

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
        return f"{self.nbits}bit" if self.nbits and self.palettized else "fp16"

    @property
    def chunks_word(self) -> str:
        """The word for its chunks in its variant's name; empty if it has none."""
        return f"-{self.chunks}chunks" if self.chunks > 1 else ""
