"""The networks of a bundle: loaded once, their inputs and outputs checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import BundleError
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.predictor import Chain, Predictor, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The names of what a denoiser takes and gives, for its latents, its prompt and its
    prediction."""

    latents: str = "sample"
    prompt: str = "encoder_hidden_states"
    prediction: str = "noise_pred"


_PORTS = {"transformer": Ports(latents="latent_image_embeddings",
                               prompt="token_level_text_embeddings", prediction="denoiser_output")}
_UNET = {"sample": 4, "timestep": 1, "encoder_hidden_states": 4}
_RANKS = {
    "text_encoder": {"input_ids": 2},
    "text_encoder_2": {"input_ids": 2},
    "text_encoder_3": {"input_ids": 2},
    "unet": _UNET,
    "transformer": {"latent_image_embeddings": 4, "timestep": 1,
                    "token_level_text_embeddings": 4, "pooled_text_embeddings": 4},
    "refiner": _UNET,
    "controlled_unet": _UNET,
    "controlnet": _UNET | {"controlnet_cond": 4},
    "vae_decoder": {"z": 4},
    "vae_encoder": {"x": 4},
    "safety_checker": {"clip_input": 4, "images": 4, "adjustment": 1},
}
"""The inputs that each component must have, with the number of their dimensions."""
ENCODERS: Mapping[str, tuple[str, ...]] = {
    "sd": ("text_encoder",),
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sdxl-refiner": ("text_encoder_2",),
    "sd3": ("text_encoder", "text_encoder_2"),
}
"""The text encoders of each family that can be drawn with."""

CONTROLLED = "controlled_unet"
"""The U-Net that takes what ControlNets give."""

T5 = "text_encoder_3"

Shape = tuple[int | None, ...]
"""A shape; None is any size."""


class Networks:
    """Gives what components make of inputs, by the names of the components.

    Args:
        parts: gives the predictor of each component, instead of the bundle's own models.
    Units:
        weight_bytes: of decoded weights that the executor keeps of each component, all if None.
    """

    def __init__(
        self, bundle: Bundle, predictor: str = "auto", weight_bytes: int | None = None,
        parts: Callable[[str], Predictor] | None = None,
    ) -> None:
        if bundle.family not in ENCODERS:
            raise BundleError(f"{bundle.folder}: family is {bundle.family}, expected one of "
                              f"{', '.join(ENCODERS)}", hint="its images cannot be generated yet")
        self._bundle, self._predictor, self._weight_bytes = bundle, predictor, weight_bytes
        self._parts = parts
        self._loaded: dict[str, Chain] = {}
        self.encoders = ENCODERS[bundle.family]
        self.has_t5 = bundle.family == "sd3" and T5 in bundle.models
        self.base = "transformer" if bundle.family == "sd3" else "unet"
        self.ports = _PORTS.get(self.base, Ports())
        self.denoisers = (self.base, *(("refiner",) if "refiner" in bundle.models else ()))

    def denoiser(self, request: Request) -> str:
        """Returns the denoiser that draws a request: of U-Nets the controlled one if there are
        ControlNets, or if the bundle has no other."""
        has_plain = self.base in self._bundle.models or CONTROLLED not in self._bundle.models
        return self.base if has_plain and not request.control else CONTROLLED

    def load(self, request: Request) -> None:
        """Loads what a request is drawn with, as far as it is not loaded yet.

        Raises:
            BundleError: there is none, or it does not take what it is given here.
        """
        also = (T5,) if self.has_t5 else ()
        denoisers = (self.denoiser(request), *self.denoisers[1:])
        for component in (*self.encoders, *also, *denoisers, "vae_decoder"):
            self.part(component)

    def part(self, component: str) -> Predictor:
        """Returns the predictor of a component."""
        if self._parts:
            return self._parts(component)
        if component not in self._loaded:
            self._loaded[component] = self._load(component)
        return self._loaded[component]

    def _load(self, component: str) -> Chain:
        """Returns the models of a component, with the inputs that it is given here."""
        bundle = self._bundle
        if component not in bundle.models:
            also = (T5,) if self.has_t5 else ()
            drawing = (*self.encoders, *also, *self.denoisers, "vae_decoder", component)
            wanted = ",".join(dict.fromkeys(drawing))
            raise BundleError(f"{bundle.folder}: no {component}, which generating needs",
                              hint=f"build it with components={wanted}")
        chain = load(bundle.models[component], self._predictor, bundle.attention,
                     self._weight_bytes, bundle.functions.get(component))
        found = {name: len(shape) for name, shape in chain.shapes.items()}
        needed = _RANKS[component.partition("/")[0]]
        if not needed.items() <= found.items():
            raise self.misfit(component, "inputs", found, needed)
        return chain

    def latents_shape(self, request: Request) -> tuple[int, ...]:
        """Returns the shape of the latents that a request's denoiser takes."""
        return self.shape(self.denoiser(request), self.ports.latents)

    def shape(self, component: str, name: str) -> tuple[int, ...]:
        """Returns the shape of a component's input."""
        return self.part(component).shapes[name]

    def outputs(
        self, component: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns a component's outputs; of the inputs it gets those that it has, in their
        shapes."""
        part = self.part(component)
        given = {}
        for name, shape in part.shapes.items():
            if name not in inputs:
                raise self.misfit(component, "inputs", ", ".join(part.shapes),
                                  ", ".join(inputs))
            if inputs[name].size != int(np.prod(shape)):
                raise self.misfit(component, f"input {name}", shape, inputs[name].shape)
            given[name] = inputs[name].reshape(shape)
        return part.predict(given)

    def output(
        self, component: str, inputs: Mapping[str, np.ndarray], name: str, shape: Shape
    ) -> np.ndarray:
        """Returns a component's output of a name, in this shape."""
        return self.taken(component, self.outputs(component, inputs), name, shape)

    def taken(
        self, component: str, found: Mapping[str, np.ndarray], name: str, shape: Shape
    ) -> np.ndarray:
        """Returns one of a component's outputs, of this shape."""
        sizes = found[name].shape if name in found else ()
        if len(sizes) != len(shape) or any(
                wanted not in (None, size) for size, wanted in zip(sizes, shape, strict=True)):
            raise self.misfit(component, f"output {name}", sizes or "nothing", shape)
        return found[name]

    def misfit(self, component: str, what: str, found: object, expected: object) -> BundleError:
        """Returns the error for a component that is not as drawing needs it."""
        folder = self._bundle.folder
        return BundleError(f"{folder}: {component}: {what}: found {found}, expected {expected}",
                           hint=f"sdbuild contract {folder} says what else is wrong")
