"""quantize: weights to 8-bit integers, and what layers are given, too, where that loses little."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdbuild.base.filenames import contents
from sdbuild.base.machine import processors
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.observe import RANGES
from sdbuild.steps.palettize import workers

_LEAST_SNR_DB = 30.0
"""Of the guided noise with the inputs of layers rounded; layers are given fp16 until it has it."""


class Quantize(ComponentStage):
    """Quantizes a package's large weights, and the inputs of layers."""

    version = 1
    summary = "weights and the inputs of layers to 8-bit integers"
    memory = Memory(120_000_000, largest=12)  # one tensor at a time
    most_memory = Memory(120_000_000, largest=12 * processors())
    time = Time(1.2, tensor=0.008, billion=8)
    tools = ("numpy",)
    gives = "package"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's activations are quantized."""
        return recipe.packaging.activations_of(component) is not None

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package with fp16 weights, and what its layers were given."""
        return {"package": Need("package"), "ranges": Need("ranges", RANGES)}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the integers, besides the inputs."""
        return {"nbits": recipe.packaging.nbits_of(component), "least_snr_db": _LEAST_SNR_DB}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the quantized package; the facts are a report of each tensor, and the layers whose
        inputs stay in fp16."""
        from sdbuild.mil.compress.activations import chosen, read_layer_inputs
        from sdbuild.mil.compress.quantize import quantize
        from sdbuild.mil.files.package import read_package

        (source,) = contents(job.inputs["package"], PACKAGE)
        found = read_layer_inputs(job.inputs["ranges"])
        rounded = chosen(found, job.params["least_snr_db"])
        reports = quantize(
            source, job.output / source.name, nbits=job.params["nbits"],
            activations={item.layer: item.largest for item in rounded},
            workers=workers(job, read_package(source)),
        )
        return {"tensors": [asdict(report) for report in reports], "layers": len(found),
                "rounded": len(rounded),
                "work": sum(item.work for item in rounded) / sum(item.work for item in found)}


STAGE = Quantize()
