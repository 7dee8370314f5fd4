"""chunk: one package to several that run in a row, cut where the shipped bytes balance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdbuild.base.filenames import contents
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.families.nouns import chunk_names
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe


class Chunk(ComponentStage):
    """Cuts a denoiser's program."""

    version = 2
    summary = "cut the U-Net into programs that run in a row"
    memory = Memory(45_000_000, tensor=20_000)  # copies blobs
    time = Time(0.3, billion=2)
    gives = "package"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether hosts load it in chunks, and the recipe wants some."""
        return recipe.packaging.chunks_of(component) > 1

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package, palettized or not."""
        return {"package": Need("package")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the cut, besides the package."""
        return {"chunks": recipe.packaging.chunks_of(component)}

    def run(self, job: Job) -> dict[str, Any]:
        """Writes `<name>Chunk1.mlpackage`, `<name>Chunk2.mlpackage`; the facts say where it was
        cut."""
        from sdbuild.mil.edit.chunk import chunk

        (source,) = contents(job.inputs["package"], PACKAGE)
        names = chunk_names(source.stem, job.params["chunks"])
        targets = [job.output / (name + PACKAGE) for name in names]
        return asdict(chunk(source, targets))


STAGE = Chunk()
