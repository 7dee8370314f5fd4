"""compile: `.mlpackage` to `.mlmodelc`, by our portable compiler or by Apple's on a Mac."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.apple import COMMAND, HINT, MISSING, compiler_version
from sdbuild.base.errors import StepError, ToolMissing
from sdbuild.base.filenames import contents
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.recipe.recipe import Recipe


class Compile(ComponentStage):
    """Compiles each package."""

    version = 2
    summary = ".mlpackage to .mlmodelc"
    memory = Memory(80_000_000)  # links blobs
    time = Time(0.3)
    gives = "compiled"

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the package, cut or not."""
        return {"package": Need("package")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the compiler."""
        return {"compiler": recipe.packaging.compiler}

    def other_tools(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Returns the version of Apple's compiler, if it is the one that is asked for.

        Raises:
            ToolMissing: it is asked for and not here.
        """
        if params["compiler"] == "portable":
            return {}
        version = compiler_version()
        if not version:
            raise ToolMissing(f"compiler=apple: {MISSING}", hint=HINT)
        return {"coremlcompiler": version}

    def run(self, job: Job) -> None:
        """Writes a `.mlmodelc` for each package.

        Raises:
            StepError: Apple's compiler does not compile one.
        """
        for source in contents(job.inputs["package"], PACKAGE):
            if job.params["compiler"] == "apple":
                _by_apple(source, job.output)
            else:
                _portable(source, job.output / (source.stem + COMPILED))


STAGE = Compile()


def _portable(source: Path, target: Path) -> None:
    from sdbuild.mil.compile.compile import compile_package

    compile_package(source, target, is_linked=True)  # the store's files are read only


def _by_apple(source: Path, folder: Path) -> None:
    command = [*COMMAND, "compile", str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise StepError(
            f"{source.stem}: {' '.join(COMMAND)} compile: exit status {done.returncode}\n{said}",
            hint="compiler=portable compiles without Apple's tools")
    made = folder / (source.stem + COMPILED)
    if not made.is_dir():
        raise StepError(f"coremlcompiler reported success but wrote no {made.name}")
