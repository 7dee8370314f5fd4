"""originals: the pictures that a checkpoint draws in PyTorch, in fp32, before it is converted.

Every variant of a bundle is compared with the same ones, so they know of no quant, layout or cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import json_file
from sdbuild.bundle.request import Request
from sdbuild.checkpoints.normalized import (
    ARCHITECTURE,
    LATENTS,
    WEIGHTS,
    Latents,
    latents,
    read_architecture,
)
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZER_3, file_name
from sdbuild.checkpoints.schedule import FLOW, check_schedule, predicts
from sdbuild.checkpoints.sidecar_configs import END_TOKEN
from sdbuild.engine.stage import BundleStage, From, Job, Memory, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from sdbuild.bundle.manifest import Bundle
    from sdbuild.runtime.predictor import Predictor


PIXELS = 512 * 512
"""Of a picture whose U-Net takes twelve seconds a step for a billion parameters, two at a time."""

_PIXEL_BYTES = 4800
"""Bytes per pixel that an autoencoder of the published size holds in fp32 while it decodes."""


class DrawingStage(BundleStage):
    """Draws the images by which a bundle is judged."""

    time = Time(6)
    tools = ("torch", "diffusers", "transformers", "numpy", "pillow")
    holds_one_network = True

    def applies(self, recipe: Recipe) -> bool:
        """Whether a bundle of the recipe can generate images."""
        return recipe.can_generate

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """As long as the U-Net takes for the steps of all pictures."""
        steps = sum(request["steps"] * request["count"] for request in params["requests"])
        size = params["width_px"] * params["height_px"] / PIXELS
        return Time(self.time.base, billion=12 * steps * size)

    def params(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the settings that determine the pictures, besides the networks."""
        return {
            "family": recipe.family.name, "width_px": recipe.network.width_px,
            "height_px": recipe.network.height_px, **recipe.network.denoiser_params,
            **recipe.network.encoder_params,
            "requests": recipe.checked_requests(),
            **({"lower": recipe.packaging.lower} if recipe.is_of_packages else {}),
        }


class Originals(DrawingStage):
    """Draws with the checkpoint."""

    version = 1
    summary = "generate images with the PyTorch original"
    memory = Memory(600_000_000, largest=4)  # weights are decoded one at a time

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """Returns what a step holds: mostly an image while it is decoded."""
        pixels = params["width_px"] * params["height_px"]
        return replace(self.memory, base=self.memory.base + _PIXEL_BYTES * pixels)

    def inputs(self, recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> dict[str, From]:
        """Returns the weights as they go into the bundle, with LoRAs and before anything else."""
        weights = {name: From(made[name]["checkpoint"]) for name in drawing(recipe)}
        return weights | resources(made)

    def run(self, job: Job) -> dict[str, Any]:
        """Writes `1.png`, `2.png`, …, one for each request.

        Raises:
            SourceError: the checkpoint produces numbers that are not finite.
        """
        from sdbuild.families import FAMILIES

        family = FAMILIES[job.params["family"]]
        kind = _package if "lower" in job.params else Original

        def load(name: str) -> Predictor:
            return kind(family.component(name), job.inputs[name], job.params)

        for number, image in enumerate(drawn(job, load), 1):
            if image is None:
                raise SourceError(
                    f"picture {number}: the checkpoint produces numbers that are not finite, in "
                    "PyTorch and fp32 too",
                    hint="its weights are damaged: download it again, or use another")
            image.save(job.output / picture(number))
        return {}


STAGE = Originals()


def _package(component: Component, checkpoint: Path, params: Mapping[str, Any]) -> Predictor:
    """Returns a finished package, as the original of what is made of it."""
    from sdbuild.runtime.predictor import load

    return load([checkpoint / (component.bundle_name + PACKAGE)], "portable", "original")


def drawing(recipe: Recipe) -> list[str]:
    """Returns the components of a recipe that its pictures are drawn with."""
    wanted = (*recipe.family.drawing, *recipe.family.also_drawing)
    return [c.name for c in recipe.components if c.name in wanted]


def picture(number: int) -> str:
    """Returns the file of the picture with a number, from 1."""
    return f"{number}.png"


def resources(made: Mapping[str, Mapping[str, str]]) -> dict[str, From]:
    """Returns the inputs that generating needs besides networks."""
    return {"resources": From(made["resources"]["checkpoint"]),
            "latents": From(made["vae_decoder"]["checkpoint"], LATENTS)}


def drawn(job: Job, load: Callable[[str], Predictor]) -> Iterator[Image.Image | None]:
    """Yields the pictures that are asked of a step; None where one is not finite.

    Args:
        load: gives a component's network.

    Raises:
        SourceError: the checkpoint's scheduler cannot be used.
    """
    from sdbuild.runtime.drawing import draw_each

    bundle = drawing_bundle(job, latents(job.inputs["latents"]))
    return draw_each(bundle, [Request(**request) for request in job.params["requests"]], load)


def drawing_bundle(job: Job, scale: Latents) -> Bundle:
    """Returns the bundle, of no models, that the original's images are made from.

    Raises:
        SourceError: the checkpoint's scheduler cannot be used.
    """
    from sdbuild.bundle.manifest import Bundle

    resources, given = job.inputs["resources"], job.params
    path = resources / file_name(SCHEDULER)
    scheduler = json_file(path, SourceError, has_infinities=True)
    check_schedule(scheduler, path.name, SourceError)
    own = predicts(scheduler)
    is_own = own == FLOW or given.get("prediction") == "checkpoint"  # a text encoder has none
    return Bundle(
        folder=resources, name="original", family=given["family"], width_px=given["width_px"],
        height_px=given["height_px"], attention="original",
        scale_factor=scale.scaling_factor, shift_factor=scale.shift_factor, pad_token=END_TOKEN,
        prediction_type=own if is_own else "epsilon",
        scheduler=scheduler, models=dict.fromkeys(job.inputs, ()), defaults={}, description="",
        tokenizer_3=file_name(TOKENIZER_3.one_file),
    )


class Original:
    """A component's PyTorch original as a predictor, in fp32; its U-Net takes two samples."""

    def __init__(self, component: Component, checkpoint: Path, params: Mapping[str, Any]) -> None:
        from sdbuild.models import network

        given = {**params, "batch": 2}
        architecture = read_architecture(checkpoint / ARCHITECTURE, given)
        dims = network.dims(component, architecture, given)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            port.name: port.sized(dims) for port in component.inputs}
        self._component = component
        self._network = network.weighted(component, architecture, checkpoint / WEIGHTS)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs."""
        import torch

        given = [torch.from_numpy(inputs[name]).float() for name in self.shapes]
        with torch.inference_mode():
            made = self._network(*given)
        outputs = made if isinstance(made, tuple) else (made,)
        return {port.name: tensor.numpy()
                for port, tensor in zip(self._component.outputs, outputs, strict=True)}
