"""calibrate: how much each weight of a network matters, and what its layers are given in use.

The original network makes the images of a recipe's prompts, in PyTorch and fp32; gradients and
inputs are taken on the way. Every number of bits is chosen from the same calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdbuild.base.machine import free_at_once
from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS, Latents, read_architecture
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import FAMILIES, TOKENS, Component
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.originals import PIXELS

if TYPE_CHECKING:
    from sdbuild.quality.moments import Moment
    from sdbuild.runtime.predictor import Predictor

MOMENTS = 4
"""Of each image."""

_SEED = 20_261_128

_PASS_STEPS = 4
"""The steps of an image that a forward and a backward pass take, which computes blocks again."""

_PIXEL_BYTES = 3600
"""Of a U-Net: 2,350 that are kept until the backward pass, and what a block takes in it."""

_TOKEN_PIXELS = 140
"""Pixels that are as much work, in layers as large, as one token."""


class Calibrate(ComponentStage):
    """Passes over what a network is given in use."""

    version = 3
    summary = "how much each weight matters, on real prompts"
    memory = Memory(400_000_000, largest=8)  # sums are in files
    time = Time(20)
    tools = ("torch", "diffusers", "transformers", "numpy")
    gives = "calibration"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's palettes are chosen by calibration."""
        return recipe.packaging.is_calibrated(component)

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """Returns what a step holds: mostly what blocks pass on until there are gradients."""
        return replace(self.memory, base=self.memory.base + int(_PIXEL_BYTES * pixels_of(params)))

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """Returns the time of all steps of images, and of gradients, which are four times the work.
        """
        requests = params["requests"]
        if component_of(params).reads_tokens:
            steps = _PASS_STEPS * len(requests)
        else:
            steps = sum(request["steps"] + _PASS_STEPS * MOMENTS for request in requests)
        return replace(self.time, billion=12 * steps * pixels_of(params) / PIXELS)

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the checkpoint."""
        return {"checkpoint": Need("checkpoint")}

    def borrows(self, recipe: Recipe, component: Component) -> dict[str, Need]:
        """Returns the text encoders whose embeddings it is given, and the tokenizer."""
        encoders = [] if component.reads_tokens else [
            c.name for c in recipe.components if c.reads_tokens]
        return {name: Need("checkpoint", component=name) for name in (*encoders, "resources")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine what the network is given."""
        return {
            "family": recipe.family.name, "component": component.name,
            "width_px": recipe.network.width_px, "height_px": recipe.network.height_px,
            **recipe.network.params_of(component), "batch": 2, "seed": _SEED, "moments": MOMENTS,
            "requests": recipe.calibration_requests(),
        }

    def run(self, job: Job) -> dict[str, Any]:
        """Writes what `quality/calibration.py` reads.

        Raises:
            StepError: a gradient is not finite.
        """
        from sdbuild.models import network
        from sdbuild.models.recomputed import recompute
        from sdbuild.quality.calibrate import Passes, embedded, guided
        from sdbuild.quality.calibration import write_calibration

        free_at_once()
        component = component_of(job.params)
        moments = moments_of(job, component)
        checkpoint = job.inputs["checkpoint"]
        architecture = read_architecture(checkpoint / ARCHITECTURE, job.params)
        guidance = job.params["requests"][0]["guidance"]
        passes = Passes(
            recompute(network.weighted(component, architecture, checkpoint / WEIGHTS)),
            [port.name for port in component.inputs],
            embedded if component.reads_tokens else guided(guidance), job.params["seed"],
            job.output.parent,
        )
        passes.run(moments)
        write_calibration(job.output, passes.energy, passes.sensitivities(), passes.feedbacks())
        return {"moments": len(moments)}


STAGE = Calibrate()


def component_of(params: Mapping[str, Any]) -> Component:
    """Returns the component of a step."""
    return FAMILIES[params["family"]].component(params["component"])


def pixels_of(params: Mapping[str, Any]) -> int:
    """Returns the pixels of an image, or as many as a text encoder's tokens are like."""
    if component_of(params).reads_tokens:
        return TOKENS * _TOKEN_PIXELS
    pixels: int = params["width_px"] * params["height_px"]
    return pixels


def moments_of(job: Job, component: Component) -> list[Moment]:
    """Returns what the network is given in use."""
    from sdbuild.bundle.request import Request
    from sdbuild.quality.moments import moments
    from sdbuild.steps.originals import Original, drawing_bundle

    places: Mapping[str, Any] = {**job.inputs, component.name: job.inputs["checkpoint"]}
    family = FAMILIES[job.params["family"]]

    def load(name: str) -> Predictor:
        return Original(family.component(name), places[name], job.params)

    return moments(
        drawing_bundle(job, Latents(scaling_factor=1.0)),
        [Request(**request) for request in job.params["requests"]], load, component.name,
        job.params["moments"],
    )
