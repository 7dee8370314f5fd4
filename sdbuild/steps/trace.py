"""trace: the network's graph, from its architecture alone.

The network is built on the meta device, so its parameters have shapes and no numbers: the trace
costs no memory for weights, and one trace serves every checkpoint of the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import StepError
from sdbuild.base.garbage import rare_searches
from sdbuild.checkpoints.normalized import ARCHITECTURE, read_architecture
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe

if TYPE_CHECKING:
    import torch


class Trace(ComponentStage):
    """Captures a network's graph."""

    version = 4
    summary = "capture the graph of each network, without weights"
    memory = Memory(450_000_000, tensor=90_000)  # torch and diffusers; weights have no numbers
    time = Time(5.5, tensor=0.017)  # as many operations as tensors, about
    tools = ("torch", "diffusers", "transformers")
    gives = "graph"
    is_sized = True

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """Three times as much for layouts that split attention by heads."""
        return self.time if params["attention"] == "original" else Time(5.5, tensor=0.05)

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether it is a network that is converted."""
        return bool(component.folder) and not recipe.is_of_packages

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the architecture alone: no weights."""
        return {"architecture": Need("checkpoint", ARCHITECTURE)}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the graph, besides the architecture."""
        mixed = {"precision": "mixed"} if component.precision == "mixed" else {}
        return {
            "family": recipe.family.name, "component": component.name, **mixed,
            "attention": recipe.network.attention_of(component),
            **recipe.network.params_of(component),
        }

    @rare_searches()
    def run(self, job: Job) -> dict[str, Any]:
        """Writes `graph.pt2`, an exported program whose tensors have no numbers."""
        import torch

        from sdbuild.families import FAMILIES
        from sdbuild.lowering.graph import Graph, write_graph
        from sdbuild.lowering.sparing import sparing
        from sdbuild.models import network
        from sdbuild.models.group_norm import replace_group_norms
        from sdbuild.models.upsample import replace_upsamples

        component = FAMILIES[job.params["family"]].component(job.params["component"])
        architecture = read_architecture(job.inputs["architecture"], job.params)
        dims = network.dims(component, architecture, job.params)
        shapes = network.input_shapes(component, architecture, dims)
        inputs = tuple(torch.zeros(shape, device="meta") for shape in shapes)
        lowerable = network.laid_out(
            network.weightless(component, architecture), job.params["attention"]
        )
        replace_group_norms(lowerable)
        replace_upsamples(lowerable)
        with torch.no_grad(), sparing():
            program = torch.export.export(lowerable, inputs)
            program = program.run_decompositions({})
            _clean(program)
            precision = network.precision(component, architecture)
            write_graph(job.output, Graph(program=program, precision=precision))
        return {"operations": sum(n.op == "call_function" for n in program.graph.nodes)}


STAGE = Trace()


def _clean(program: torch.export.ExportedProgram) -> None:
    """Takes out of the graph what would make the same trace differ, and what cannot be lowered.

    Stack traces name the files of this machine. `alias` gives its argument back, and
    `_assert_tensor_metadata` checks what the export has already fixed: coremltools 9 knows neither.
    `_to_copy` to the meta device is where constants, which have numbers, met what has none.
    """
    import torch

    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        is_passed = node.target is aten.alias.default or (
            node.target is aten._to_copy.default and node.kwargs.keys() == {"device"}
        )
        if is_passed:
            node.replace_all_uses_with(node.args[0])
        if is_passed or node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program._example_inputs = None
    if program.graph_signature.buffers:
        raise StepError(
            f"trace: the network keeps numbers outside its parameters: "
            f"{', '.join(program.graph_signature.buffers)}",
            hint="pass them in or compute them in forward: they do not exist on the meta device",
        )
