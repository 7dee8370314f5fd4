"""allocate: the bits of each weight, so that all together lose least in so many bytes.

Writes a bit recipe, which holds for every checkpoint of the architecture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import StepError
from sdbuild.base.filenames import contents
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import several
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.models.parameters import NET
from sdbuild.recipe.bits import BITS, PALETTE_BITS, REST, UNPACKED, encoded
from sdbuild.recipe.recipe import Recipe
from sdbuild.steps.convert import virtual_weights

if TYPE_CHECKING:
    from sdbuild.mil.files.package import Model

_BESIDE_BYTES = 192
"""The most that a weight with a palette takes in a file beside its indices and its table: one more
entry of 64 bytes, and the fill after both of them."""

_FACTORS = {1: 2.0}
"""By which costs count more than they are rated. Errors of 1 bit are so large that those of several
weights meet, which no rating knows of: the image is worse, and that of a fine-tune more so."""


class Allocate(ComponentStage):
    """Divides a budget among weights."""

    version = 3
    summary = "the bits of each weight within a budget"
    memory = Memory(150_000_000)
    time = Time(1.5)
    tools = ("numpy",)
    gives = "bits"
    reads_virtual = ("package",)

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the component's weights have bits of their own."""
        return recipe.packaging.budget_of(component) is not None

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package, what its places hold, and what widths cost."""
        roles = ["package", "lowered"]
        if recipe.packaging.allotment.bits is None:
            roles += ["ratings"]
        return {role: Need(role) for role in roles}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the budget, and the weights that are left out."""
        skipped = component.never_palettized
        return {"component": component.name, "budget": recipe.packaging.budget_of(component),
                **({"skip_types": list(skipped)} if skipped else {})}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes `bits.json`; the facts say what it takes and, by the ratings, loses.

        Raises:
            StepError: no allocation is within the budget, or a bit recipe lacks a weight.
        """
        from sdbuild.mil.files.validate import read_sound
        from sdbuild.quality.places import Places, weights_of

        (package,) = contents(job.inputs["package"], PACKAGE)
        model = read_sound(package, virtual_weights(job, "package"))
        opset, tasks = weights_of(model, job.params.get("skip_types", ()))
        places, budget = Places.of(job.inputs["lowered"]), job.params["budget"]
        names = {str(binding.parameter).removeprefix(NET): task.type.elements
                 for task in tasks if (binding := places.binding(task))}
        facts: dict[str, Any] = {}
        if "bits" in budget:
            bits = _given(names, budget["bits"])
        else:
            bits, facts = _allocated(job, names, opset, model)
        recipe = encoded({job.params["component"]: bits})
        (job.output / BITS).write_text(json.dumps(recipe, indent=1), "utf-8")
        return facts


STAGE = Allocate()


def _given(names: Mapping[str, int], bits: Mapping[str, int]) -> dict[str, int]:
    """Returns the bits of a bit recipe for these weights."""
    hint = "it is of another architecture: allocate bits for this one, with quant=4.0"
    if REST not in bits and (lost := [name for name in names if name not in bits]):
        raise StepError(f"bits: the recipe lacks {len(lost)} of {len(names)} weights, the first is "
                        f"{lost[0]}", hint=hint)
    foreign = [name for name in bits if name not in names and name != REST]
    if REST in bits and foreign:
        said = several([f"{name}{did_you_mean(name, names)}" for name in foreign])
        raise StepError(f"bits: {len(foreign)} names of the recipe are of no weight that is "
                        f"palettized: {said}", hint=hint)
    return {name: bits.get(name, bits.get(REST, UNPACKED)) for name in names}


def _allocated(
    job: Job, names: Mapping[str, int], opset: int, model: Model
) -> tuple[dict[str, int], dict[str, Any]]:
    """Returns the bits that the ratings say are best within the budget, and what they take."""
    from sdbuild.mil.compress.assigned import widths
    from sdbuild.quality.allocate import Weight, allocate, total_bytes
    from sdbuild.quality.rated import read_ratings

    ratings, budget = read_ratings(job.inputs["ratings"]), job.params["budget"]
    weights = {name: Weight(elements=elements, costs={
        bits: ratings.weights[NET + name].costs[bits] * _FACTORS.get(bits, 1.0)
        for bits in widths(opset)})
        for name, elements in names.items()}
    size = _bytes(budget, names, model)
    most_cost = ratings.energy / 10 ** (budget["quality_db"] / 10) if "quality_db" in budget \
        else None
    bits = allocate(weights, size, most_cost)
    if bits is None:
        least = total_bytes(weights, dict.fromkeys(weights, min(widths(opset))))
        raise StepError(f"{job.params['component']}: no bits are within the budget: weights take "
                        f"{least} bytes at least, and may take {size}",
                        hint="allow more bits, more bytes, or less quality")
    lost = sum(weights[name].costs[found] for name, found in bits.items())
    return bits, {"bytes": total_bytes(weights, bits), "budget_bytes": size,
                  "expected_db": round(10 * math.log10(ratings.energy / lost), 2)
                  if lost else None}


def _bytes(budget: Mapping[str, Any], names: Mapping[str, int], model: Model) -> int:
    """Returns the bytes that indices and tables may take."""
    from sdbuild.mil.files.package import WEIGHT_FILE
    from sdbuild.quality.allocate import packed_bytes

    if "size_bytes" in budget:
        whole = max(record.data_offset + record.size_bytes
                    for record in model.reader(WEIGHT_FILE).records())
        rest = whole - 2 * sum(names.values()) + _BESIDE_BYTES * len(names)
        return max(0, budget["size_bytes"] - rest)
    average = budget.get("average_bits", max(PALETTE_BITS))
    return sum(packed_bytes(elements, average) for elements in names.values())
