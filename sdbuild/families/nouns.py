"""The nouns of a family: its components, their ports, and what is asked of them.

Shapes are written with letters; a checkpoint's config and the recipe's size give them numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Dims = Mapping[str, int]
"""Numbers for the letters of port shapes: B batch, C latent channels, I those that a U-Net takes,
H W pixels, h w latent cells, S tokens, D embedding width, P width of a pooled embedding."""

SIZES = {"B": "batch", "H": "height_px", "h": "height_px", "W": "width_px", "w": "width_px"}
"""The letters whose numbers depend on a recipe, and the field of it that they depend on."""


Precision = Literal["fp16", "fp32", "mixed"]
"""The floating-point type that a network computes in: `mixed` is fp16 for matrices, and fp32 for
all between them."""

Setting = Literal["prediction", "attention", "chunk", "lora", "embedding", "clip_skip"]
"""A field of a recipe that holds for some components and not for others: what a denoiser predicts,
how attention is laid out, in how many chunks hosts load it, which LoRAs change it, which embeddings
are written into it, and how many of its last layers are left out."""


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
    is_numbered: bool = False
    """True if it stands for several ports, `NAME_0`, `NAME_1` and so on: one for each residual of
    the network, which decides their shapes."""

    def sized(self, dims: Dims) -> tuple[int, ...]:
        """Returns the shape in numbers."""
        return tuple(dims[d] if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least PSNR of a component against its original, in dB, by bits of its weights; `w8a8`
    has quantized activations, too."""

    by_quant: Mapping[str, float]
    reason: str

    def at(self, nbits: int | None, activations: int | None = None) -> float | None:
        """Returns the floor for weights and activations of so many bits (None: fp16), or None if
        there is none."""
        word = f"w{nbits}a{activations}" if activations else str(nbits or "none")
        return self.by_quant.get(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A network of a family: where its checkpoint lies and what it is in a bundle.

    Attributes:
        network: the module of `sdbuild/models/` that builds it.
        folder: its part of a checkpoint, as diffusers names it.
        source: the field of a recipe that says where that checkpoint lies; where it is not given,
            `source` does.
        family: the family that its checkpoint is of, if that is another one.
        prefixes: those of its tensors' names in the checkpoint's file.
        drop: the prefix of those names that the network's parameters do not have.
        derived: the tensors whose parameters are computed from them while they are copied, each
            with the function of `sdbuild/safetensors/derived.py` that does: what a network takes
            from a table for a size of picture or a length of prompt.
        sidecars: folders whose files say what its config does not: how its input is padded, what
            its output is.
        precision: of what it computes. A network in fp32 is one that overflows fp16, one in `mixed`
            has sums that do; a checkpoint that says it does not is computed in fp16 all the same.
        settings: those of a recipe that hold for it, besides the `sizes` of its ports: stages ask
            for theirs.
        is_palettized: it has palettes unless the recipe says which components have.
        is_optional: a checkpoint may lack it.
        never_palettized: the types of operations whose weights stay as they are.
        floor: the one of `sdbuild check` unless the recipe has another.
        comes_with: the field of a recipe without which it is not there.
        instance: its number among several of its name in one bundle, each with its own source.
    """

    name: str
    bundle_name: str
    folder: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    network: str = ""
    source: str = "source"
    family: str = ""
    prefixes: tuple[str, ...] = ("",)
    drop: str = ""
    derived: Mapping[str, str] = field(default_factory=dict)
    sidecars: tuple[str, ...] = ()
    precision: Precision = "fp16"
    settings: frozenset[Setting] = frozenset()
    is_palettized: bool = False
    is_optional: bool = False
    never_palettized: tuple[str, ...] = ()
    floor: Floor = Floor(reason="", by_quant={})
    comes_with: str = ""
    instance: str = ""

    @property
    def label(self) -> str:
        """The label of its steps: its name, and which of several it is."""
        return f"{self.name}/{self.instance}" if self.instance else self.name

    def with_ports(self, inputs: int, outputs: int) -> Component:
        """Returns the same with so many inputs and outputs, of which numbered ports make up the
        rest."""
        return replace(self, inputs=_numbered(self.inputs, inputs),
                       outputs=_numbered(self.outputs, outputs))

    def takes(self, setting: Setting) -> bool:
        """Whether a setting of a recipe holds for it."""
        return setting in self.settings

    def parameter(self, tensor: str) -> str:
        """Returns the name of the network's parameter that a checkpoint's tensor is for."""
        return tensor.removeprefix(self.drop)

    @property
    def reads_tokens(self) -> bool:
        """Whether it is a text encoder."""
        return any(port.name == "input_ids" for port in self.inputs)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The fields of a recipe that the shapes of its ports depend on."""
        letters = {d for port in (*self.inputs, *self.outputs) for d in port.shape}
        return tuple(sorted({SIZES[d] for d in letters if d in SIZES}))


def _numbered(ports: tuple[Port, ...], count: int) -> tuple[Port, ...]:
    *fixed, last = ports
    if not last.is_numbered:
        return ports
    return (*fixed, *(replace(last, name=f"{last.name}_{number}", is_numbered=False)
                      for number in range(count - len(fixed))))


def size_text(size: tuple[int, int]) -> str:
    """Returns a size as recipes have it: `512x768`."""
    return "x".join(map(str, size))


def size_name(width_px: int, height_px: int) -> str:
    """Returns the name of the function for a size, in models that have one for each of several."""
    return f"size_{width_px}x{height_px}"


def chunk_names(model: str, chunks: int) -> list[str]:
    """Returns the names of a model's chunks, in the order they run in; of one chunk the model's."""
    return [f"{model}Chunk{number}" for number in range(1, chunks + 1)] if chunks > 1 else [model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of models that share components and a pipeline.

    Attributes:
        drawing: the components without which no picture is drawn.
        also_drawing: those that it is drawn with where they are there.
        batches: the batch sizes that hosts send its denoiser.
        scheduler: the one that images are generated with unless a recipe says which.
        side_px: what the sides of its pictures are multiples of: a latent cell, or a patch of them.
    """

    name: str
    title: str
    components: tuple[Component, ...]
    drawing: tuple[str, ...]
    also_drawing: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 2)
    scheduler: str = "dpm"
    side_px: int = 8

    def component(self, name: str) -> Component:
        """Returns the component called `name`."""
        return next(c for c in self.components if c.name == name)

    def takes(self, setting: Setting) -> bool:
        """Whether a setting of a recipe holds for one of its components."""
        return any(component.takes(setting) for component in self.components)
