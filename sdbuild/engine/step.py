"""Steps and their keys: what determines the bytes of an artifact."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from sdbuild.base.errors import ToolMissing
from sdbuild.base.versions import installed
from sdbuild.recipe.sources import Source

SCHEMA = 1
"""The version of keys and records. Raising it forgets every record."""


@dataclass(frozen=True, slots=True)
class From:
    """An input: the artifact of the step called `step`, or one path of it."""

    step: str
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage applied to one component.

    `params` may change the artifact's bytes and are in its key. So are `reads`, the parts of a
    checkpoint that it reads from `source`, by their folders, and the digests of the files that
    these come from; the place is not. Where a recipe is locked, the digests that its own files must
    have, `locked`, stand in their stead. `facts` go into the artifact's record, and into nothing
    else.
    """

    kind: str
    component: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, From] = field(default_factory=dict)
    source: Source | None = None
    reads: tuple[str, ...] = ()
    locked: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name as a doit task: `convert:unet`."""
        return f"{self.kind}:{self.component}" if self.component else self.kind

    @property
    def stage(self) -> ModuleType:
        """The module of its stage, `sdbuild/steps/<kind>.py`."""
        return stage(self.kind)


LARGEST_MESSAGE = 64 << 20
"""Bytes of a job or a result, which hold what is known of files and tensors by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the process of a step is given: where its inputs are, and where its output goes.

    `places` are where the checkpoint may be, for the stage that reads one, `config` the folder
    that says what a single file does not, `facts` what is known of them, `reads` the parts, and
    `locked` the digests that its output must have, if any.
    `resources` are what it may use, which never changes its bytes: `memory_bytes`.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    output: Path
    places: Sequence[str] = ()
    config: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    reads: Sequence[str] = ()
    locked: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)


def stage(kind: str) -> ModuleType:
    """The module of a stage. It holds, and a new stage brings:

    VERSION   an integer, raised by hand when the bytes that it writes change
    TOOLS     the packages whose version may change its bytes
    NEEDS     its inputs: {name: role} or {name: (role, path in the artifact)}; where they
              depend on the recipe, needs(recipe) in its place
    GIVES     the role of its output, for the stages after it
    applies(recipe, component), params(recipe, component)   light: no heavy import
    source(recipe, component)   only if it reads from outside: `source`, `reads` and `locked` of a
              step
    tools(params)               only if it uses tools that are no packages: {name: version}
    run(job)  the work, in a process of its own; may return facts for the record
    """
    return importlib.import_module(f"sdbuild.steps.{kind}")


def tool_versions(step: Step) -> dict[str, str]:
    """The versions of the tools that the step declares.

    Raises:
        ToolMissing: one of them is not installed.
    """
    versions = {}
    for tool in step.stage.TOOLS:
        try:
            versions[tool] = installed(tool)
        except metadata.PackageNotFoundError as error:
            raise ToolMissing(
                f"{step.name}: the package {tool} is not installed.", hint=f"pip install {tool}"
            ) from error
    own_tools = getattr(step.stage, "tools", None)
    return versions | (own_tools(step.params) if own_tools else {})


def ingredients(
    step: Step, inputs: Mapping[str, str], source: Mapping[str, str]
) -> dict[str, Any]:
    """All that determines the step's bytes: the pre-image of its key, and what `why` compares.

    One file may hold several parts, so that its digest alone does not tell what is read of it.

    Args:
        inputs: the digest of each input's content.
        source: the digest of each file that is read from outside, or that is locked.
    """
    found = {
        "schema": SCHEMA,
        "kind": step.kind,
        "version": step.stage.VERSION,
        "params": dict(step.params),
        "inputs": dict(inputs),
        "source": dict(source),
        "tools": tool_versions(step),
    }
    return found | ({"reads": list(step.reads)} if step.reads else {})
