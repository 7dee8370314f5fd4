"""The nouns of a family: its components, their ports, and what is asked of them.

Shapes are written with letters; a checkpoint's config and the recipe's size give them numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Dims = Mapping[str, int]
"""Numbers for the letters of port shapes: B batch, C latent channels, H W pixels, h w latent
cells, S tokens, D embedding width."""

SIZES = {"B": "batch", "H": "height_px", "h": "height_px", "W": "width_px", "w": "width_px"}
"""The letters whose numbers depend on a recipe, and the field of it that they depend on."""


Setting = Literal["prediction", "attention", "chunk", "lora"]
"""A field of a recipe that holds for some components and not for others: what a denoiser predicts,
how attention is laid out, in how many chunks hosts load it, and which LoRAs change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of a component.

    Source:
        Names, ranks and types that hosts expect: apple/ml-stable-diffusion at e12202c, the Swift
        sources; see `docs/formats/bundle.md`.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str

    def sized(self, dims: Dims) -> tuple[int, ...]:
        """The shape in numbers."""
        return tuple(dims[d] if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least PSNR of a component against its original, in dB, by bits of its weights."""

    by_quant: Mapping[str, float]
    reason: str

    def at(self, nbits: int | None) -> float | None:
        """The floor for weights of `nbits` (None: fp16), or None if there is none."""
        return self.by_quant.get(str(nbits or "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A network of a family: where its checkpoint lies and what it is in a bundle.

    `prefixes` select its tensors in the checkpoint's file, and `drop` is what their names begin
    with there and the network's parameters do not. `beside` names the folders whose files say
    what its config does not: how its input is padded, what its output is. `settings` are those of
    a recipe that hold for it, beside the `sizes` of its ports: stages ask for theirs.
    `is_optional` says whether a checkpoint may come without it. `never_palettized` are the types
    of operations whose weights stay as they are, and `floor` is what `doit check` asks of it where
    a recipe does not say.
    """

    name: str
    bundle_name: str
    folder: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    prefixes: tuple[str, ...] = ("",)
    drop: str = ""
    beside: tuple[str, ...] = ()
    settings: frozenset[Setting] = frozenset()
    is_optional: bool = False
    never_palettized: tuple[str, ...] = ()
    floor: Floor = Floor(reason="", by_quant={})

    def takes(self, setting: Setting) -> bool:
        """Whether a setting of a recipe holds for it."""
        return setting in self.settings

    def parameter(self, tensor: str) -> str:
        """The name of the network's parameter that a checkpoint's tensor is for."""
        return tensor.removeprefix(self.drop)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The fields of a recipe that the shapes of its ports depend on."""
        letters = {d for port in (*self.inputs, *self.outputs) for d in port.shape}
        return tuple(sorted({SIZES[d] for d in letters if d in SIZES}))


def chunk_names(model: str, chunks: int) -> list[str]:
    """How hosts call the chunks of a model, in the order they run in; one is the model itself."""
    return [f"{model}Chunk{number}" for number in range(1, chunks + 1)] if chunks > 1 else [model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of models that share components and a pipeline."""

    name: str
    title: str
    components: tuple[Component, ...]

    def component(self, name: str) -> Component:
        """The component called `name`."""
        return next(c for c in self.components if c.name == name)
