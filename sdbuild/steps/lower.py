"""lower: the graph to an ML Program with stand-ins for weights, once per architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe


class Lower(ComponentStage):
    """Lowers the graph for every checkpoint of the architecture."""

    version = 4
    summary = "graph to an ML Program, with placeholder weights"
    memory = Memory(450_000_000, 0.1)  # a stand-in takes four bytes a row
    time = Time(4.5, tensor=0.02)
    tools = ("torch", "coremltools", "numpy")
    gives = "lowered"
    is_sized = True

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """Returns more for ControlNets: coremltools multiplies the weights of their last
        convolutions by a scale of 1, and holds them whole from then on."""
        more = 120_000_000 if params["component"] == "controlnet" else 0
        return replace(self.memory, base=self.memory.base + more)

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether it is a network, and not converted directly."""
        return bool(component.folder) and recipe.packaging.is_lowered_once

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the graph alone: no checkpoint."""
        return {"graph": Need("graph")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the lowered program, besides the graph."""
        return {
            "family": recipe.family.name, "component": component.name,
            "target": recipe.packaging.target,
        }

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the lowered program and its bindings."""
        from sdbuild.families import FAMILIES
        from sdbuild.lowering import once
        from sdbuild.lowering.graph import read_graph
        from sdbuild.lowering.lowered import write_lowered

        component = FAMILIES[job.params["family"]].component(job.params["component"])
        graph = read_graph(job.inputs["graph"])
        lowered = once.lower(graph.program, component, job.params["target"], job.output,
                             precision=graph.precision)
        write_lowered(job.output, lowered)
        return {"parameters": len(lowered.parameters), "bindings": len(lowered.bindings)}


STAGE = Lower()
