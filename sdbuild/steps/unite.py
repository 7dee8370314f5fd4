"""unite: packages of several sizes to one, which has a function for each and their weights once."""

from __future__ import annotations

from typing import Any

from sdbuild.base.filenames import contents
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.families.nouns import size_name
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe


class Unite(ComponentStage):
    """Makes functions of a component's programs."""

    version = 1
    summary = "programs of several sizes to functions of one package"
    memory = Memory(80_000_000)  # copies blobs
    time = Time(0.3, billion=4)
    tools = ("coremltools",)
    gives = "package"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether there are several."""
        return bool(recipe.network.sizes_of(component))

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package of each size, by the name of its function, the default one first."""
        return {size_name(*size): Need("package", size=size)
                for size in recipe.network.sizes}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the names of the functions, the default one first."""
        return {"functions": list(self.needs(recipe))}

    def run(self, job: Job) -> None:
        """Writes one package, called as each of them is."""
        from sdbuild.mil.edit.functions import unite

        sources = {}
        for name in job.params["functions"]:
            [sources[name]] = contents(job.inputs[name], PACKAGE)
        target = next(iter(sources.values())).name
        unite(sources, job.output / target)


STAGE = Unite()
