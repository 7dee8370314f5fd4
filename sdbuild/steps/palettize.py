"""palettize: each large weight to a lookup table and indices, by k-means."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.base.machine import processors
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.convert import virtual_weights

if TYPE_CHECKING:
    from sdbuild.mil.files.package import Model

_BASE_BYTES = 100_000_000  # numpy, and numba while it compiles
_ELEMENT_BYTES = 12
"""Of a weight while it is palettized: in fp32, sorted, its indices, packed ones that wait."""


class Palettize(ComponentStage):
    """Palettizes a package's large weights."""

    version = 3
    summary = "weights to lookup tables and indices"
    memory = Memory(120_000_000, largest=8)  # one tensor at a time; numba compiles
    most_memory = Memory(120_000_000, largest=12 * processors())  # a tensor for each processor
    time = Time(1.2, tensor=0.008, billion=8)
    tools = ("numpy",)
    gives = "package"
    reads_virtual = ("package",)

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the recipe gives all of the component's weights one number of bits."""
        packaging = recipe.packaging
        return (packaging.nbits_of(component) is not None
                and packaging.budget_of(component) is None
                and packaging.activations_of(component) is None)

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package with fp16 weights."""
        return {"package": Need("package")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the palettes, besides the weights."""
        packaging, skipped = recipe.packaging, component.never_palettized
        own = {"skip_types": list(skipped), "mixed": packaging.mixed_of(component),
               "group_size": packaging.group_size}
        return {"nbits": packaging.nbits_of(component)} | {
            name: value for name, value in own.items() if value}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the package with palettized weights; the facts are a report of each tensor."""
        from sdbuild.bundle.layout import link_folder
        from sdbuild.mil.compress.palettize import palettize
        from sdbuild.mil.files.package import read_package
        from sdbuild.mil.inspect.packed import packing

        (source,) = contents(job.inputs["package"], PACKAGE)
        weights = virtual_weights(job, "package")
        model = read_package(source, weights)
        if packing(model.program) == {job.params["nbits"]}:  # it came with them
            link_folder(source, job.output / source.name)
            return {"tensors": []}
        reports = palettize(
            source, job.output / source.name, nbits=job.params["nbits"],
            skip_types=job.params.get("skip_types", ()), mixed=job.params.get("mixed"),
            group_size=job.params.get("group_size"), workers=workers(job, model),
            weights=weights,
        )
        return {"tensors": [asdict(report) for report in reports]}


STAGE = Palettize()


def workers(job: Job, model: Model) -> int:
    """As many threads as there are processors, and as have room for the largest weight."""
    from sdbuild.mil.files.package import WEIGHT_FILE

    largest = max((record.count for record in model.reader(WEIGHT_FILE).records()), default=1)
    fitting = (job.resources.get("memory_bytes", 0) - _BASE_BYTES) // (largest * _ELEMENT_BYTES)
    return max(1, min(processors(), fitting))
