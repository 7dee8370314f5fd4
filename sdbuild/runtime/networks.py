"""The networks of a bundle: loaded once, their inputs and outputs checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sdbuild.base.errors import BundleError
from sdbuild.bundle.manifest import Bundle
from sdbuild.runtime.predictor import Chain, Predictor, load

_RANKS = {
    "text_encoder": {"input_ids": 2},
    "unet": {"sample": 4, "timestep": 1, "encoder_hidden_states": 4},
    "vae_decoder": {"z": 4},
    "vae_encoder": {"x": 4},
    "safety_checker": {"clip_input": 4, "images": 4, "adjustment": 1},
}
"""The inputs that each component must have, with the number of their dimensions."""
NEEDED = ("text_encoder", "unet", "vae_decoder")

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
        self._bundle, self._predictor, self._weight_bytes = bundle, predictor, weight_bytes
        self._parts = parts
        self._loaded: dict[str, Chain] = {}

    def load(self, *components: str) -> None:
        """Loads components that are not loaded yet.

        Raises:
            BundleError: there is none, or it does not take what it is given here.
        """
        for component in components:
            self.part(component)

    def part(self, component: str) -> Predictor:
        """The predictor of a component."""
        if self._parts:
            return self._parts(component)
        if component not in self._loaded:
            self._loaded[component] = self._load(component)
        return self._loaded[component]

    def _load(self, component: str) -> Chain:
        """The models of a component, with the inputs that it is given here."""
        bundle = self._bundle
        if component not in bundle.models:
            raise BundleError(
                f"{bundle.folder}: no {component}, which drawing needs",
                hint=f"build it with components={','.join(dict.fromkeys((*NEEDED, component)))}",
            )
        chain = load(bundle.models[component], self._predictor, bundle.attention,
                     self._weight_bytes)
        found = {name: len(shape) for name, shape in chain.shapes.items()}
        if not _RANKS[component].items() <= found.items():
            raise self.misfit(component, "inputs", found, _RANKS[component])
        return chain

    def shape(self, component: str, name: str) -> tuple[int, ...]:
        """The shape of a component's input."""
        return self.part(component).shapes[name]

    def output(
        self, component: str, inputs: Mapping[str, np.ndarray], name: str, shape: Shape
    ) -> np.ndarray:
        """What a component gives under a name, of this shape."""
        found = self.part(component).predict(inputs)
        sizes = found[name].shape if name in found else ()
        if len(sizes) != len(shape) or any(
                wanted not in (None, size) for size, wanted in zip(sizes, shape, strict=True)):
            raise self.misfit(component, f"output {name}", sizes or "nothing", shape)
        return found[name]

    def misfit(self, component: str, what: str, found: object, expected: object) -> BundleError:
        """The error for a component that is not as drawing needs it."""
        folder = self._bundle.folder
        return BundleError(f"{folder}: {component}: {what}: found {found}, expected {expected}",
                           hint=f"sdbuild contract {folder} says what else is wrong")
