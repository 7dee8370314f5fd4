"""palettize: each large weight to a lookup table and indices, by k-means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdbuild.family import Component
from sdbuild.filenames import contents
from sdbuild.memory import processors
from sdbuild.recipe import Recipe
from sdbuild.step import Job
from sdbuild.steps import PACKAGE_CODE

VERSION = 2
TOOLS = ("coremltools", "numpy")
CODE = ("steps/palettize.py", "mil/palettize.py", "mil/compress.py", "mil/packed.py",
        "mil/kmeans.py", "mil/partition.py", "mil/destination.py", "mil/sound.py",
        "mil/edit.py", "mil/traverse.py", "mil/arrays.py", *PACKAGE_CODE)
NEEDS = {"package": "package"}
GIVES = "package"

_BASE_BYTES = 60_000_000
_ELEMENT_BYTES = 12
"""Of a weight while it is palettized: in fp32, sorted, its indices, packed ones that wait."""


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return recipe.nbits_of(component) is not None


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides the palettes beside the weights."""
    whole = {"skip_types": list(component.whole)} if component.whole else {}
    return {"nbits": recipe.nbits_of(component)} | whole


def run(job: Job) -> dict[str, Any]:
    """Writes the package with palettized weights; the facts are a report of each tensor."""
    from sdbuild.mil.palettize import palettize

    (source,) = contents(job.inputs["package"], ".mlpackage")
    reports = palettize(
        source, job.output / source.name, nbits=job.params["nbits"],
        skip_types=job.params.get("skip_types", ()), workers=_workers(job, source),
    )
    return {"tensors": [asdict(report) for report in reports]}


def _workers(job: Job, source: Path) -> int:
    """As many threads as there are processors, and as have room for the largest weight."""
    from sdbuild.mil.blob import BlobReader
    from sdbuild.mil.package import WEIGHT_FILE, read_package

    file = read_package(source).weight_path(WEIGHT_FILE)
    largest = max((record.count for record in BlobReader(file).records()), default=1)
    fitting = (job.resources.get("memory_bytes", 0) - _BASE_BYTES) // (largest * _ELEMENT_BYTES)
    return max(1, min(processors(), fitting))
