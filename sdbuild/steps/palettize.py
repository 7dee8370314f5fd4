"""palettize: each large weight to a lookup table and indices, by k-means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdbuild.base.filenames import contents
from sdbuild.base.machine import processors
from sdbuild.engine.step import Job
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe

VERSION = 2
TOOLS = ("coremltools", "numpy")
NEEDS = {"package": "package"}
GIVES = "package"

_BASE_BYTES = 60_000_000
_ELEMENT_BYTES = 12
"""Of a weight while it is palettized: in fp32, sorted, its indices, packed ones that wait."""


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return recipe.packaging.nbits_of(component) is not None


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the palettes beside the weights."""
    whole = {"skip_types": list(component.whole)} if component.whole else {}
    return {"nbits": recipe.packaging.nbits_of(component)} | whole


def run(job: Job) -> dict[str, Any]:
    """Writes the package with palettized weights; the facts are a report of each tensor."""
    from sdbuild.mil.compress.palettize import palettize

    (source,) = contents(job.inputs["package"], ".mlpackage")
    reports = palettize(
        source, job.output / source.name, nbits=job.params["nbits"],
        skip_types=job.params.get("skip_types", ()), workers=_workers(job, source),
    )
    return {"tensors": [asdict(report) for report in reports]}


def _workers(job: Job, source: Path) -> int:
    """As many threads as there are processors, and as have room for the largest weight."""
    from sdbuild.mil.files.blob import BlobReader
    from sdbuild.mil.files.package import WEIGHT_FILE, read_package

    file = read_package(source).weight_path(WEIGHT_FILE)
    largest = max((record.count for record in BlobReader(file).records()), default=1)
    fitting = (job.resources.get("memory_bytes", 0) - _BASE_BYTES) // (largest * _ELEMENT_BYTES)
    return max(1, min(processors(), fitting))
