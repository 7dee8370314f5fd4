"""observe: the range of what each layer of a network is given in use, and what rounding it loses.

The original network makes the images of a recipe's prompts, as `calibrate` has it do; the ML
Program in fp16 then runs on what it was given at some moments of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.base.machine import free_at_once
from sdbuild.engine.stage import Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.calibrate import MOMENTS, Calibrate, component_of, moments_of, pixels_of
from sdbuild.steps.originals import PIXELS
from sdbuild.steps.parity import Parity, weight_bytes

if TYPE_CHECKING:
    import numpy as np

    from sdbuild.mil.files.package import Model
    from sdbuild.quality.moments import Moment

RANGES = "ranges.json"

_MEASURED = 8
"""Moments at which each layer alone is given rounded inputs."""

_RUNS = 150
"""Of a U-Net for that at one moment: it has 300 layers, and a run begins at the layer."""


class Observe(Calibrate):
    """Runs a package on what the network is given in use."""

    version = 1
    summary = "the range of each layer's input, on real prompts"
    memory = Parity.memory  # the same executor, on the same program
    most_memory = Parity.most_memory
    time = Time(10)
    gives = "ranges"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's activations are quantized."""
        return recipe.packaging.activations_of(component) is not None

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """Returns what a step holds: no gradients."""
        return self.memory

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """Returns the time of all steps of images, and of the runs on their moments."""
        steps = sum(request["steps"] + MOMENTS for request in params["requests"])
        steps += _RUNS * _MEASURED
        return replace(self.time, billion=12 * steps * pixels_of(params) / PIXELS)

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine what the network is given; nothing is drawn."""
        found = super().params(recipe, component) | {"measured": _MEASURED}
        return {name: value for name, value in found.items() if name != "seed"}

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the checkpoint, and the package with fp16 weights."""
        return {"checkpoint": Need("checkpoint"), "package": Need("package")}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes `ranges.json`, which `mil/compress/activations.py` reads.

        Raises:
            MILError: the input of a layer is not finite.
        """
        from sdbuild.mil.compress.activations import write_layer_inputs
        from sdbuild.mil.execute.layer_inputs import observed
        from sdbuild.mil.files.package import read_package

        free_at_once()
        moments = moments_of(job, component_of(job.params))
        (source,) = contents(job.inputs["package"], PACKAGE)
        model = read_package(source)
        guidance = job.params["requests"][0]["guidance"]
        found = observed(model, [_samples(model, moment) for moment in moments],
                         matters=partial(_noise, guidance), measured=job.params["measured"],
                         weight_bytes=weight_bytes(job))
        write_layer_inputs(job.output / RANGES, found)
        return {"moments": len(moments), "layers": len(found)}


STAGE = Observe()


def _samples(model: Model, moment: Moment) -> list[Moment]:
    """Returns a moment in as many parts as the program takes: of one that takes a single sample,
    those of the negative prompt and of the prompt each for itself."""
    batch = next(shape[0] for shape in model.input_shapes.values())
    given = len(next(iter(moment.values())))
    return [{name: array[at:at + batch] for name, array in moment.items()}
            for at in range(0, given, batch)]


def _noise(guidance: float, outputs: Sequence[Moment]) -> np.ndarray:
    """Returns the guided noise of a moment, whose parts gave these outputs."""
    import numpy as np

    (both,) = [np.concatenate(parts).astype(np.float64)
               for parts in zip(*(made.values() for made in outputs), strict=True)]
    without, found = np.split(both, 2)
    guided: np.ndarray = without + guidance * (found - without) if guidance > 1 else found
    return guided
