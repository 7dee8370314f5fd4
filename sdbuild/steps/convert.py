"""convert: an `.mlpackage` with fp16 weights, from a lowered program or a graph.

`lower=once` streams the checkpoint into the program that was lowered for its architecture. If only
steps that can bind weights themselves read the package, as `palettize` does, its weight file is
virtual: hashed, not stored.
`lower=packages` takes a finished package as it is, once it is what the recipe says.
`lower=direct` has coremltools convert the graph with these very weights: the reference that the
other way is compared with byte for byte, and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.checkpoints.normalized import WEIGHTS
from sdbuild.engine.stage import VIRTUAL, ComponentStage, Job, Memory, Need, Time
from sdbuild.families import FAMILIES, Component
from sdbuild.mil.files.suffixes import PACKAGE, WEIGHTS_IN_PACKAGE
from sdbuild.models.parameters import by_parameter
from sdbuild.recipe.fields import PACKAGES
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.download import checkpoint_tensors

if TYPE_CHECKING:
    from sdbuild.lowering.lowered import Lowered
    from sdbuild.mil.files.blob import Blobs
    from sdbuild.safetensors.tensors import Tensor


class Convert(ComponentStage):
    """Brings the weights in."""

    version = 3
    summary = "program and weights to an .mlpackage in fp16"
    memory = Memory(80_000_000, largest=8)  # streams; a transposed tensor is held whole
    time = Time(0.4, billion=12)
    tools = ("numpy",)
    gives = "package"
    is_sized = True
    reads_virtual = ("checkpoint",)

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """More by far where coremltools converts, which copies every weight in fp32."""
        return Memory(1_000_000_000, 7.0) if params["lower"] == "direct" else self.memory

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """More where coremltools converts."""
        return Time(10, billion=60) if params["lower"] == "direct" else self.time

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns its inputs, by the way it converts."""
        if recipe.is_of_packages:
            return {"checkpoint": Need("checkpoint")}
        role = "lowered" if recipe.packaging.is_lowered_once else "graph"
        return {role: Need(role), "checkpoint": Need("checkpoint")}

    def tools_of(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of the converter, too, where it is used."""
        return (*self.tools, "torch", "coremltools") if params["lower"] == "direct" else self.tools

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the package, besides program and weights."""
        packaging = recipe.packaging
        found = {
            "family": recipe.family.name, "component": component.name,
            "lower": "once" if packaging.is_lowered_once else packaging.lower,
            "attention": recipe.network.attention_of(component),
        }
        if recipe.is_of_packages:
            found |= {name: getattr(recipe.network, name) for name in component.sizes}
        return found | ({"target": packaging.target} if not packaging.is_lowered_once else {})

    def may_be_virtual(self, params: Mapping[str, Any], path: str) -> bool:
        """Whether it is the weight file, which a reader can bind from program and checkpoint."""
        return params["lower"] == "once" and path.endswith(WEIGHTS_IN_PACKAGE)

    def run(self, job: Job) -> dict[str, Any]:
        """Writes `<bundle name>.mlpackage`."""
        component = _component(job)
        return _WAYS[job.params["lower"]](job, component)


STAGE = Convert()


def virtual_weights(job: Job, name: str) -> Blobs | None:
    """Returns the weights of an input that `convert` made, if their file is virtual."""
    made = job.virtual.get(name)
    if made is None:
        return None
    from sdbuild.lowering.bind import BoundBlobs

    program, tensors = _bound(made, _component(made))
    return BoundBlobs(program, tensors)


def _component(job: Job) -> Component:
    return FAMILIES[job.params["family"]].component(job.params["component"])


def _bound(job: Job, component: Component) -> tuple[Lowered, dict[str, Tensor]]:
    """Returns the program, and the checkpoint's tensors by its parameters."""
    from sdbuild.lowering.lowered import read_lowered

    program = read_lowered(job.inputs["lowered"])
    return program, by_parameter(
        component, checkpoint_tensors(job, "checkpoint").values(), program.parameters)


def _bind(job: Job, component: Component) -> dict[str, Any]:
    from sdbuild.lowering.bind import BoundBlobs, bind
    from sdbuild.safetensors.shapes import check_fit

    program, tensors = _bound(job, component)
    unused = check_fit(
        component.name, program.parameters, {name: t.shape for name, t in tensors.items()}
    )
    facts: dict[str, Any] = {
        "unused": dict.fromkeys(unused, "the network has no such parameter")}
    weights, smallest = BoundBlobs(program, tensors), job.resources.get("virtual_from_bytes")
    is_virtual = smallest is not None and weights.size_bytes >= smallest
    package = component.bundle_name + PACKAGE
    bind(program, tensors, job.output / package, _described(program.spec, component, job),
         is_without_weights=is_virtual)
    if is_virtual:
        facts[VIRTUAL] = {f"{package}/{WEIGHTS_IN_PACKAGE}": weights.digest()}
    return facts


def _direct(job: Job, component: Component) -> dict[str, Any]:
    import shutil
    from pathlib import Path

    from sdbuild.lowering import coreml
    from sdbuild.lowering.graph import read_graph
    from sdbuild.mil.files.package import write_package
    from sdbuild.mil.ir.decode import decode_program
    from sdbuild.models import network
    from sdbuild.safetensors import tensors

    graph = read_graph(job.inputs["graph"])
    stored = job.inputs["checkpoint"] / WEIGHTS
    if "checkpoint" in job.virtual:
        tensors.write(stored, checkpoint_tensors(job, "checkpoint").values())
    weights = network.bind(component, graph.program.state_dict, stored)
    spec, file = coreml.lower(graph.program, weights, component, job.params["target"],
                              graph.precision)
    write_package(
        job.output / (component.bundle_name + PACKAGE),
        specification_version=spec.specificationVersion,
        description=_described(spec, component, job),
        program=decode_program(spec.mlProgram),
        weights=Path(shutil.copyfile(file, job.output / "weight.bin")),
    )
    return {}


def _taken(job: Job, component: Component) -> dict[str, Any]:
    from sdbuild.bundle.finished import check_package
    from sdbuild.bundle.layout import link_folder
    from sdbuild.mil.files.package import read_package

    source = job.inputs["checkpoint"] / (component.bundle_name + PACKAGE)
    check_package(read_package(source), component, job.params)
    link_folder(source, job.output / source.name)
    return {}


_WAYS = {"once": _bind, "direct": _direct, PACKAGES: _taken}


def _described(spec: Any, component: Component, job: Job) -> Any:
    """Returns the model's description with the meaning of each port."""
    description = spec.description
    component = component.with_ports(len(description.input), len(description.output))
    meanings = {port.name: port.meaning for port in (*component.inputs, *component.outputs)}
    for feature in (*description.input, *description.output):
        feature.shortDescription = meanings[feature.name]
    title = FAMILIES[job.params["family"]].title
    description.metadata.shortDescription = f"{title}: {component.name}"
    description.metadata.userDefined["attention_implementation"] = job.params["attention"]
    return description
