"""compile: `.mlpackage` to `.mlmodelc`, by our portable compiler or by Apple's on a Mac."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.errors import StepError, ToolMissing
from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.step import Job
from sdbuild.steps import PACKAGE_CODE

VERSION = 2
TOOLS = ("coremltools",)
CODE = ("steps/compile.py", "mil/compile.py", "mil/coremldata.py", "mil/histogram.py",
        "mil/destination.py", "mil/edit.py", "mil/traverse.py", "mil/literals.py",
        "mil/metadata.py", "mil/precisions.py", "mil/schemas.py", "mil/sound.py", "mil/text.py",
        *PACKAGE_CODE)
NEEDS = {"package": "package"}
GIVES = "compiled"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return bool(component.folder)


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """Who compiles."""
    return {"compiler": recipe.compiler}


def tools(params: Mapping[str, Any]) -> dict[str, str]:
    """The version of Apple's compiler, if it is the one that is asked for."""
    if params["compiler"] == "portable":
        return {}
    return {"coremlcompiler": _xcrun("version").strip()}


def run(job: Job) -> None:
    """Writes a `.mlmodelc` for each package."""
    for source in sorted(job.inputs["package"].glob("*.mlpackage")):
        if job.params["compiler"] == "apple":
            _xcrun("compile", str(source), str(job.output))
            made = job.output / f"{source.stem}.mlmodelc"
            if not made.is_dir():
                raise StepError(f"coremlcompiler reported success but wrote no {made.name}")
        else:
            _portable(source, job.output / f"{source.stem}.mlmodelc")


def _portable(source: Path, target: Path) -> None:
    from sdbuild.mil.compile import compile_package

    compile_package(source, target, is_linked=True)  # the store's files are read only


def _xcrun(*arguments: str) -> str:
    """What `xcrun coremlcompiler` prints.

    Raises:
        ToolMissing: there is no xcrun, as on every machine but a Mac.
        StepError: it ended with another status than 0.
    """
    command = ["xcrun", "coremlcompiler", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ToolMissing(
            "compiler=apple: there is no xcrun here; it comes with Xcode, on a Mac",
            hint="compiler=portable makes the same files on any machine",
        ) from error
    if done.returncode != 0:
        raise StepError(
            f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}"
        )
    return done.stdout
