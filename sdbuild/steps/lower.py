"""lower: the graph to an ML Program with stand-ins for weights, once per architecture."""

from __future__ import annotations

from typing import Any

from sdbuild.engine.step import Job
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe

VERSION = 4
TOOLS = ("torch", "coremltools", "numpy")
NEEDS = {"graph": "graph"}
GIVES = "lowered"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return bool(component.folder) and recipe.packaging.lower == "once"


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the lowered program beside the graph."""
    return {
        "family": recipe.family.name, "component": component.name,
        "target": recipe.packaging.target,
    }


def run(job: Job) -> dict[str, Any]:
    """Writes the lowered program and its bindings."""
    import torch

    from sdbuild.families import FAMILIES
    from sdbuild.lowering import bind, once

    component = FAMILIES[job.params["family"]].component(job.params["component"])
    program = torch.export.load(job.inputs["graph"] / "graph.pt2")
    lowered = once.lower(program, component, job.params["target"], job.output)
    bind.write_lowered(job.output, lowered)
    return {"parameters": len(lowered.parameters), "bindings": len(lowered.bindings)}
