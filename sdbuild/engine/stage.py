"""Stages: one file each in `sdbuild/steps/`, and its name in `STAGES`.

Modules of stages import nothing heavy before `run`, for every command plans with them.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.sources import Source

STAGES = (
    "download",   # checkpoints are verified before any work starts
    "merge",      # LoRAs change weights, so nothing after it knows that there were some
    "embed",      # before palettes, which a learned word is part of
    "trace",      # needs only the architecture, so it is shared by every checkpoint of it
    "lower",      # so is this, the last stage that needs torch and coremltools' converter
    "convert",    # weights come in here, streamed
    "unite",      # before palettize, so that weights of several sizes are palettized once
    "calibrate",  # of the original network, so that every budget shares it
    "rate",       # so does this
    "allocate",   # a budget, which costs no more than the palettes after it
    "assign",     # palettes that are allocated, in the place of equal ones
    "palettize",  # before chunk, so that chunks are balanced by the bytes that ship
    "observe",    # of the whole program in fp16, so that any choice of layers shares it
    "quantize",   # integers in the place of palettes
    "chunk",      # copies blobs, so that another cut costs no palette
    "compile",    # per program, so after the cut
    "parity",     # what the compiled component does, measured against its original
    "bundle",     # everything that a host loads
    "originals",  # knows of nothing that was done to the bundle
    "pictures",   # compared with these
)
"""All stages, each after those whose artifacts it reads: `sdbuild/steps/<name>.py`."""


FINISHED = "package"
"""The parameter of a step that reads finished packages: what the model is called."""

VIRTUAL = "virtual"
"""The key of a step's facts that holds its virtual files: digest and size in bytes, by path."""


@dataclass(frozen=True, slots=True)
class From:
    """An input: the artifact of the step called `step`, or one path of it."""

    step: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """An input of a stage: the artifact that last played `role` for its component, or for another
    one of the recipe by its label; or one path of it. `size` is that of a network where it is not
    the stage's own."""

    role: str
    path: str = ""
    size: tuple[int, int] | None = None
    component: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The reads of a step from outside: the parts `reads` of a checkpoint, by their folders, from
    `source`. Where a recipe is locked, `locked` are the digests that its own files must have."""

    source: Source | None = None
    reads: tuple[str, ...] = ()
    locked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """The size of a network: the elements of all its tensors, and of the largest, and how many
    tensors it has."""

    all: int = 0
    largest: int = 0
    tensors: int = 0

    def __add__(self, other: NetworkSize) -> NetworkSize:
        return NetworkSize(all=self.all + other.all, largest=max(self.largest, other.largest),
                           tensors=self.tensors + other.tensors)


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate in bytes: a base, plus so many for each element of all tensors, for each element
    of the largest tensor, and for each tensor (their number grows with that of operations)."""

    base: int
    each: float = 0.0
    largest: float = 0.0
    tensor: float = 0.0

    def at(self, size: NetworkSize) -> int:
        """Returns the bytes for a network of this size."""
        return int(self.base + self.each * size.all + self.largest * size.largest
                   + self.tensor * size.tensors)


@dataclass(frozen=True, slots=True)
class Time:
    """An estimate in seconds, of two cores that do nothing else: a base, and so many for each of
    the network's tensors, and for a billion of their elements."""

    base: float
    tensor: float = 0.0
    billion: float = 0.0

    def at(self, size: NetworkSize) -> float:
        """Returns the seconds for a network of this size."""
        return self.base + self.tensor * size.tensors + self.billion * size.all / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job of a step's process: where its inputs are, and where its output goes.

    `places` are where the checkpoint may be, for the stage that reads one, `beside` where that is
    which a network alone is used with, `config` the folder that says what a single file does not,
    `facts` what is known of them, `reads` the parts, and `locked` the digests that its output must
    have, if any.
    `resources` never change its bytes: `memory_bytes` is the memory that it may use,
    `virtual_from_bytes` the least size of files that it may leave virtual, if it may.
    `virtual` holds, by the name of an input with virtual files, the job that made that input.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    output: Path
    places: Sequence[str] = ()
    beside: Sequence[str] = ()
    config: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    reads: Sequence[str] = ()
    locked: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)
    virtual: Mapping[str, Job] = field(default_factory=dict)


class Stage(ABC):
    """Attributes and methods that all stages have.

    Attributes:
        version: raised by hand when the bytes that it writes for the same inputs change.
        summary: its description in `doit list`.
        memory: the requirement of a step.
        most_memory: the most that it can make use of, where that is more.
        time: the duration of a step.
        tools: the packages whose version may change its bytes.
        holds_one_network: it loads the networks that it reads one at a time.
        reads_virtual: the names of inputs that may have virtual files.
        needs_provenance: it also gets the history of its inputs, as `provenance`.
    """

    version: int
    summary: str
    memory: Memory
    most_memory: Memory | None = None
    time: Time
    tools: tuple[str, ...] = ()
    holds_one_network = False
    reads_virtual: tuple[str, ...] = ()
    needs_provenance = False

    def memory_of(self, params: Mapping[str, Any]) -> Memory:
        """Returns what a step with these parameters needs."""
        return self.memory

    def time_of(self, params: Mapping[str, Any]) -> Time:
        """Returns what a step with these parameters takes."""
        return self.time

    def tools_of(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the tools of a step with these parameters."""
        return self.tools

    def may_be_virtual(self, params: Mapping[str, Any], path: str) -> bool:
        """Whether the file at `path` of the artifact can be computed from the step's inputs, so
        that it need not be stored."""
        return False

    def other_tools(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the versions of tools that are no packages.

        Raises:
            ToolMissing: one is not installed.
        """
        return {}

    def expect(self, recipe: Recipe) -> None:  # noqa: B027 - most recipes are fine
        """Makes sure that its step can succeed, as far as the recipe alone tells.

        Raises:
            SDBuildError: it would fail, after everything that it needs was made.
        """

    @abstractmethod
    def run(self, job: Job) -> Mapping[str, Any] | None:
        """Does the work, in a process of its own; returns facts for the record."""


class ComponentStage(Stage):
    """A stage with a step for each component. `gives` is the role of its artifact, by which the
    stages after it ask for it. Where a bundle has several sizes, a stage that `is_sized` has a step
    for each of those of the component."""

    gives: str
    is_sized = False

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether the recipe has this step for the component; by default, if it is a network."""
        return bool(component.folder)

    @abstractmethod
    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns all settings that determine the bytes, besides the inputs."""

    def needs(self, recipe: Recipe) -> Mapping[str, Need]:
        """Returns its inputs, by the names that `run` has for them."""
        return {}

    def borrows(self, recipe: Recipe, component: Component) -> Mapping[str, Need]:
        """Returns its inputs from other components, by the names that `run` has for them."""
        return {}

    def reading(self, recipe: Recipe, component: Component) -> Reading:
        """Returns what it reads from outside."""
        return Reading()


class BundleStage(Stage):
    """A stage with one step for the whole bundle."""

    def applies(self, recipe: Recipe) -> bool:
        """Whether the recipe has this step."""
        return True

    @abstractmethod
    def params(self, recipe: Recipe) -> dict[str, Any]:
        """Returns all settings that determine the bytes, besides the inputs."""

    @abstractmethod
    def inputs(self, recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> Mapping[str, From]:
        """Returns its inputs, by the names that `run` has for them.

        Args:
            made: the step that last played each role, by component.
        """

    def facts(self, recipe: Recipe) -> Mapping[str, Any]:
        """Returns what goes into the artifact's record, and into nothing else."""
        return {}


def stage(kind: str) -> ComponentStage | BundleStage:
    """Returns the stage of this name: `STAGE` of `sdbuild/steps/<kind>.py`."""
    found = importlib.import_module(f"sdbuild.steps.{kind}").STAGE
    assert isinstance(found, ComponentStage | BundleStage)
    return found
