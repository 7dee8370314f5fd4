"""rate: the best table of each width for each weight, and what it costs.

Whatever budget is asked for, bits are allocated from the same ratings.
"""

from __future__ import annotations

import math
from typing import Any

from sdbuild.base.machine import processors
from sdbuild.checkpoints.normalized import WEIGHTS
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import FAMILIES, Component
from sdbuild.recipe.recipe import Recipe

_BASE_BYTES = 150_000_000
_ELEMENT_BYTES = 16
"""Of a weight while it is rated: in fp32, its sensitivity, and errors of some rows."""


class Rate(ComponentStage):
    """Rates the widths of each weight."""

    version = 2
    summary = "the tables of each width for each weight, and their cost"
    memory = Memory(_BASE_BYTES, largest=_ELEMENT_BYTES)  # one tensor at a time
    most_memory = Memory(_BASE_BYTES, largest=_ELEMENT_BYTES * processors())
    time = Time(1.5, tensor=0.1, billion=70)
    tools = ("numpy",)
    gives = "ratings"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's palettes are chosen by calibration."""
        return recipe.packaging.is_calibrated(component)

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the weights, and how much each matters."""
        return {"checkpoint": Need("checkpoint"), "calibration": Need("calibration")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the component, whose parameters are not named as in every checkpoint."""
        return {"family": recipe.family.name, "component": component.name}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes what `quality/rated.py` reads."""
        from sdbuild.models.parameters import parameter_of
        from sdbuild.quality.calibration import read_calibration
        from sdbuild.quality.rated import write_ratings
        from sdbuild.safetensors.tensors import table

        component = FAMILIES[job.params["family"]].component(job.params["component"])
        tensors = {parameter_of(component, tensor.name): tensor
                   for tensor in table([job.inputs["checkpoint"] / WEIGHTS]).values()}
        calibration = read_calibration(job.inputs["calibration"])
        largest = max(math.prod(tensors[name].shape) for name in calibration.means)
        free = job.resources.get("memory_bytes", 0) - _BASE_BYTES
        workers = max(1, min(processors(), free // (largest * _ELEMENT_BYTES)))
        return {"rated": write_ratings(job.output, tensors, calibration, workers)}


STAGE = Rate()
