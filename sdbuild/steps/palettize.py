"""palettize: each large weight to a lookup table and indices, by k-means."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.step import Job
from sdbuild.steps import PACKAGE_CODE

VERSION = 1
TOOLS = ("coremltools", "numpy")
CODE = ("steps/palettize.py", "mil/palettize.py", "mil/compress.py", "mil/packed.py",
        "mil/kmeans.py", "mil/partition.py", "mil/edit.py", "mil/arrays.py", *PACKAGE_CODE)
NEEDS = {"package": "package"}
GIVES = "package"


_COMPARED = ("concat",)
"""Operations whose constants stay whole: what a safety checker stacks a picture's embedding on, to
compare them, are few numbers, and an error in one is an error in the verdict."""


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return recipe.nbits_of(component) is not None


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the palettes beside the weights."""
    return {"nbits": recipe.nbits_of(component)}


def run(job: Job) -> dict[str, Any]:
    """Writes the package with palettized weights; the facts are a report of each tensor."""
    from sdbuild.mil.palettize import palettize

    (source,) = job.inputs["package"].glob("*.mlpackage")
    reports = palettize(source, job.output / source.name, nbits=job.params["nbits"],
                        skip_types=_COMPARED)
    return {"tensors": [asdict(report) for report in reports]}
