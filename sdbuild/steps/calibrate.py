"""calibrate: how much each weight of a network matters, and what its layers are given in use.

The original network makes the images of a recipe's prompts, in PyTorch and fp32; gradients and
inputs are taken on the way. Every number of bits is chosen from the same calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS, Latents, read_architecture
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import FAMILIES, Component
from sdbuild.recipe.recipe import Recipe

if TYPE_CHECKING:
    from sdbuild.quality.moments import Moment
    from sdbuild.runtime.predictor import Predictor

_MOMENTS = 4
"""Of each image."""

_SEED = 20_261_128


class Calibrate(ComponentStage):
    """Passes over what a network is given in use."""

    version = 1
    summary = "how much each weight matters, on real prompts"
    memory = Memory(1_200_000_000, 12.0)  # weights, sums of squares and gradients in fp32
    time = Time(20, billion=4000)
    tools = ("torch", "diffusers", "transformers", "numpy")
    gives = "calibration"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's palettes are chosen by calibration."""
        return recipe.packaging.is_calibrated(component)

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
            **recipe.network.params_of(component), "batch": 2, "seed": _SEED, "moments": _MOMENTS,
            "requests": recipe.calibration_requests(),
        }

    def run(self, job: Job) -> dict[str, Any]:
        """Writes what `quality/calibration.py` reads.

        Raises:
            StepError: a gradient is not finite.
        """
        from sdbuild.models import network
        from sdbuild.quality.calibrate import Passes, embedded, guided
        from sdbuild.quality.calibration import write_calibration

        component = FAMILIES[job.params["family"]].component(job.params["component"])
        moments = _moments(job, component)
        checkpoint = job.inputs["checkpoint"]
        architecture = read_architecture(checkpoint / ARCHITECTURE, job.params)
        guidance = job.params["requests"][0]["guidance"]
        passes = Passes(
            network.weighted(component, architecture, checkpoint / WEIGHTS),
            [port.name for port in component.inputs],
            embedded if component.reads_tokens else guided(guidance), job.params["seed"],
        )
        passes.run(moments)
        write_calibration(job.output, passes.energy, passes.sensitivities(), passes.feedbacks())
        return {"moments": len(moments)}


STAGE = Calibrate()


def _moments(job: Job, component: Component) -> list[Moment]:
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
