"""chunk: one package to several that run in a row, cut where the shipped bytes balance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdbuild.base.filenames import contents
from sdbuild.engine.step import Job
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe

VERSION = 1
TOOLS = ("coremltools",)
NEEDS = {"package": "package"}
GIVES = "package"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return recipe.packaging.chunks_of(component) > 1


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the cut beside the package."""
    return {"chunks": recipe.packaging.chunks_of(component)}


def run(job: Job) -> dict[str, Any]:
    """Writes `<name>Chunk1.mlpackage`, `<name>Chunk2.mlpackage`; the facts say where it was cut."""
    from sdbuild.mil.edit.chunk import chunk

    (source,) = contents(job.inputs["package"], ".mlpackage")
    numbers = range(1, job.params["chunks"] + 1)
    targets = [job.output / f"{source.stem}Chunk{number}.mlpackage" for number in numbers]
    return asdict(chunk(source, targets))
