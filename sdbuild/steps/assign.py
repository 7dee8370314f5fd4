"""assign: weights to the tables of the bits that each was given, and indices that make up for each
other's errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.base.machine import processors
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.models.parameters import NET
from sdbuild.recipe.bits import BITS, UNPACKED, read_bits
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.convert import virtual_weights
from sdbuild.steps.palettize import workers

if TYPE_CHECKING:
    from sdbuild.mil.compress.assigned import Choose


class Assign(ComponentStage):
    """Palettizes a package's large weights with the bits that were allocated."""

    version = 1
    summary = "weights to tables of allocated bits, and indices"
    memory = Memory(150_000_000, largest=12)  # one tensor at a time; numba compiles
    most_memory = Memory(150_000_000, largest=12 * processors())
    time = Time(1.5, tensor=0.01, billion=60)
    tools = ("coremltools", "numpy")
    gives = "package"
    reads_virtual = ("package",)

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's weights have bits of their own."""
        return recipe.packaging.budget_of(component) is not None

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package with fp16 weights, what its places hold, and what was chosen."""
        roles = ["package", "lowered", "bits"]
        if recipe.packaging.allotment.is_calibrated:
            roles += ["ratings", "calibration"]
        return {role: Need(role, BITS if role == "bits" else "") for role in roles}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the palettes, besides the inputs."""
        skipped = component.never_palettized
        return {"component": component.name,
                **({"skip_types": list(skipped)} if skipped else {})}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the package with palettized weights; the facts are a report of each tensor."""
        from sdbuild.mil.compress.assigned import palettize_as
        from sdbuild.mil.files.package import read_package

        (source,) = contents(job.inputs["package"], PACKAGE)
        weights = virtual_weights(job, "package")
        reports = palettize_as(
            source, job.output / source.name, _choices(job),
            skip_types=job.params.get("skip_types", ()),
            workers=workers(job, read_package(source, weights)), weights=weights,
        )
        return {"tensors": [asdict(report) for report in reports]}


STAGE = Assign()


def _choices(job: Job) -> Choose:
    """Returns the palette of each weight: of its bits, and calibrated where there is a
    calibration."""
    from sdbuild.mil.compress.assigned import Choice
    from sdbuild.mil.compress.packed_weights import Task
    from sdbuild.quality.calibration import read_calibration
    from sdbuild.quality.places import Places
    from sdbuild.quality.rated import read_ratings

    places = Places.of(job.inputs["lowered"])
    bits = read_bits(job.inputs["bits"])[job.params["component"]]
    is_calibrated = "calibration" in job.inputs
    ratings = read_ratings(job.inputs["ratings"]) if is_calibrated else None
    calibration = read_calibration(job.inputs["calibration"]) if is_calibrated else None

    def choose(task: Task) -> Choice | None:
        binding = places.binding(task)
        name = str(binding.parameter) if binding else ""
        count = bits.get(name.removeprefix(NET), UNPACKED)
        if binding is None or count == UNPACKED:
            return None
        if calibration is None or ratings is None:
            return Choice(bits=count)
        feedback = calibration.feedback(name)
        return Choice(
            bits=count, table=ratings.table(name, count),
            order=feedback.order if feedback else None,
            factors=feedback.factors if feedback else None, is_transposed=binding.is_transposed,
        )

    return choose
