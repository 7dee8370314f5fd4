"""convert: a graph and a checkpoint to an `.mlpackage` with fp16 weights, by coremltools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.errors import SDBuildError, StepError
from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.step import Job
from sdbuild.steps import PACKAGE_CODE

if TYPE_CHECKING:
    import torch
    from coremltools.converters.mil.mil import Operation

VERSION = 1
TOOLS = ("torch", "coremltools", "numpy")
CODE = ("steps/convert.py", "models/*.py", "family.py", *PACKAGE_CODE)
NEEDS = {"graph": "graph", "checkpoint": "checkpoint"}
GIVES = "package"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return bool(component.folder)


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the package beside graph and weights."""
    return {
        "family": recipe.family.name, "component": component.name, "target": recipe.target,
        "attention": recipe.attention,
    }


def run(job: Job) -> dict[str, Any]:
    """Writes `<bundle name>.mlpackage`."""
    import torch

    from sdbuild.family import FAMILIES
    from sdbuild.models import network

    component = FAMILIES[job.params["family"]].component(job.params["component"])
    program = torch.export.load(job.inputs["graph"] / "graph.pt2")
    weights = network.bind(
        component, program.state_dict, job.inputs["checkpoint"] / "weights.safetensors"
    )
    program._state_dict = weights
    try:
        model = _lower(program, component, job.params["target"])
    except SDBuildError:
        raise
    except Exception as error:  # coremltools raises whatever its passes meet
        raise StepError(
            f"convert:{component.name}: coremltools cannot lower the graph: "
            f"{type(error).__name__}: {error}",
            hint="python -m sdbuild doctor lists the versions that are known to work",
        ) from error
    _write(model, component, job)
    return {"parameters": sum(t.numel() for t in weights.values())}


def _lower(program: torch.export.ExportedProgram, component: Component, target: str) -> Any:
    """coremltools' model of the graph: ports typed as hosts expect, arithmetic in fp16."""
    import coremltools as ct
    import numpy as np

    types = {"fp16": np.float16, "fp32": np.float32}
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes
              if node.name in program.graph_signature.user_inputs]
    return ct.convert(
        program,
        inputs=[ct.TensorType(name=port.name, shape=shape, dtype=types[port.dtype])
                for port, shape in zip(component.inputs, shapes, strict=True)],
        outputs=[ct.TensorType(name=p.name, dtype=types[p.dtype]) for p in component.outputs],
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=ct.transform.FP16ComputePrecision(op_selector=_bears_fp16),
        convert_to="mlprogram",
        skip_model_load=True,
    )


def _bears_fp16(operation: Operation) -> bool:
    """Whether an operation may be computed in fp16.

    The sines of the time embedding may not: timestep × frequency reaches 1000, where fp16 is
    0.5 radians apart.
    """
    waves = ("sin", "cos")
    consumers = [c.op_type for output in operation.outputs for c in output.child_ops]
    return operation.op_type not in waves and not any(c in waves for c in consumers)


def _write(model: Any, component: Component, job: Job) -> None:
    """Writes coremltools' model anew, described, and without its clock and random numbers."""
    import shutil

    from sdbuild.mil.decode import decode_program
    from sdbuild.mil.package import write_package
    from sdbuild.mil.proto import messages

    spec = messages("Model").Model.FromString(model.get_spec().SerializeToString())
    _describe(spec.description, component, job)
    weights = Path(model.weights_dir) / "weight.bin"
    copy = Path(shutil.copyfile(weights, job.output / "weight.bin"))
    write_package(
        job.output / f"{component.bundle_name}.mlpackage",
        specification_version=spec.specificationVersion,
        description=spec.description,
        program=decode_program(spec.mlProgram),
        weights=copy,
    )


def _describe(description: Any, component: Component, job: Job) -> None:
    """Writes the meaning of each port, and what the model is, into its description."""
    from sdbuild.family import FAMILIES

    meanings = {port.name: port.meaning for port in (*component.inputs, *component.outputs)}
    for feature in (*description.input, *description.output):
        feature.shortDescription = meanings[feature.name]
    title = FAMILIES[job.params["family"]].title
    description.metadata.shortDescription = f"{title}: {component.name}"
    del description.metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    description.metadata.userDefined["attention_implementation"] = job.params["attention"]
