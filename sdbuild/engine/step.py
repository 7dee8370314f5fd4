"""Steps and their keys: what determines the bytes of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from sdbuild.base.digest import Digest
from sdbuild.base.versions import installed, package_missing
from sdbuild.engine.stage import BundleStage, ComponentStage, From, stage
from sdbuild.recipe.sources import Source

SCHEMA = 1
"""The version of keys and records. Raising it forgets every record."""


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
    def stage(self) -> ComponentStage | BundleStage:
        """Its stage, of `sdbuild/steps/<kind>.py`."""
        return stage(self.kind)


def tool_versions(step: Step) -> dict[str, str]:
    """Returns the versions of the tools that the step declares.

    Raises:
        ToolMissing: one of them is not installed.
    """
    versions = {}
    for tool in step.stage.tools_of(step.params):
        try:
            versions[tool] = installed(tool)
        except metadata.PackageNotFoundError as error:
            raise package_missing(step.name, tool) from error
    return versions | dict(step.stage.other_tools(step.params))


def ingredients(
    step: Step, inputs: Mapping[str, Digest], source: Mapping[str, str],
    tools: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns all that determines the step's bytes: the pre-image of its key, and what `why`
    compares.

    One file may hold several parts, so that its digest alone does not tell what is read of it.

    Args:
        inputs: the digest of each input's content.
        source: the digest of each file that is read from outside, or that is locked.
        tools: the version of each tool; by default those that are installed.
    """
    found = {
        "schema": SCHEMA,
        "kind": step.kind,
        "version": step.stage.version,
        "params": dict(step.params),
        "inputs": dict(inputs),
        "source": dict(source),
        "tools": tool_versions(step) if tools is None else dict(tools),
    }
    return found | ({"reads": list(step.reads)} if step.reads else {})
