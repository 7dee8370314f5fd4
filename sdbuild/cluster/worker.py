"""A worker's description of itself: the tools that it makes artifacts with, and its resources.

It says so itself when it joins, by resources of Dask: a tag for its tools and code, so that only
workers with those of the machine that asks get steps, one for each checkpoint on a disk that it can
read, and the memory that steps may hold together.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Status, Worker, WorkerPlugin

from sdbuild.base.apple import compiler_version
from sdbuild.base.digest import digest
from sdbuild.base.errors import SDBuildError
from sdbuild.base.machine import usable_bytes
from sdbuild.base.versions import installed
from sdbuild.checkpoints import is_hub
from sdbuild.engine.forks import share
from sdbuild.engine.plan import Plan
from sdbuild.engine.stage import STAGES, stage
from sdbuild.engine.step import Step
from sdbuild.recipe.settings import store_folder
from sdbuild.store import Store
from sdbuild.store.remote.remote import SECRET, Remote, secret

MEMORY, NETWORK, APPLE = "memory", "network", "apple_compiler"
"""Resources: bytes; a way to the Hub, which a worker may deny; Apple's compiler of models."""

SHARE = "the shared store"
TOOLS, PLACE = "sdbuild-", "place-"
"""The beginnings of tags: of workers with the same tools and code, of those that read a path."""

MANY = 1000.0
"""A worker's amount of its tag, practically unlimited; each step uses one."""


def traits(remote: str | None = None) -> dict[str, str]:
    """Returns what keys and signatures depend on here: tools, versions of stages, the secret; and
    whether the shared store is found: what is a mounted disk here may be an empty folder there.
    """
    found = {SHARE: str(_is_there(remote))} if remote is not None else {}
    for kind in STAGES:
        found[f"the step {kind}"] = f"version {stage(kind).version}"
        for tool in stage(kind).tools:
            found[tool] = "none"
            with contextlib.suppress(ModuleNotFoundError):
                found[tool] = installed(tool)
    key = secret()
    return found | {SECRET: hmac.digest(key.encode(), b"sdbuild", "sha256").hex()[:8]
                    if key else "none"}


def _is_there(remote: str) -> bool:
    with contextlib.suppress(SDBuildError):
        return Remote(remote, Store(store_folder({}))).is_marked()
    return False


def tag_of(found: Mapping[str, str]) -> str:
    """Returns the tag of workers with these traits."""
    return f"{TOOLS}{digest('traits', dict(found))[:12]}"


def place_tag(place: str) -> str:
    """Returns the tag of workers that can read a path."""
    return f"{PLACE}{digest('place', place)[:12]}"


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Returns in words what is not as expected."""
    messages = {SECRET: f"{SECRET} is another",
                SHARE: "the shared store is not there as it is here"}
    return tuple(
        messages.get(name) or f"{name} is {found.get(name, 'none')}, here {value}"
        for name, value in expected.items() if found.get(name) != value)


class Admission(WorkerPlugin):
    """Has every worker say what it is, those that join later too.

    It also keeps what a worker tells Dask of its link: values of tasks are a few bytes that count
    as many (`Made`), so by its own measure each is sent in no time, and it would soon heed them no
    more.

    Args:
        places: paths that some steps read.
        topic: the Dask topic on which it reports that it joined, and traits that are not
            `expected`.
        memory_bytes: the memory for all its steps; else as the worker or its machine says.
    """

    def __init__(
        self, expected: Mapping[str, str], places: tuple[str, ...], topic: str,
        remote: str | None, memory_bytes: int | None,
    ) -> None:
        self.name = topic
        self._expected = dict(expected)
        self._places = places
        self._remote = remote
        self._memory = memory_bytes
        self._worker: Worker | None = None

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Forgets what was measured, when a value has come from another worker."""
        if start == "flight" and self._worker is not None:
            self._worker.bandwidth = _bandwidth()

    async def setup(self, worker: Worker) -> None:
        """Sets the worker's resources, and lets steps that wait for them see it."""
        share(self.name, worker.local_directory)  # workers of one machine import torch once
        self._worker = worker
        worker.bandwidth = _bandwidth()
        found = traits(self._remote)
        tags = [tag_of(found), *(place_tag(each) for each in self._places if Path(each).exists())]
        tags += [APPLE] if compiler_version() else []
        declared = worker.state.total_resources
        limit = worker.memory_manager.memory_limit
        memory = self._memory or min(limit or usable_bytes(), usable_bytes())
        await worker.set_resources(**{
            MEMORY: declared.get(MEMORY, memory), NETWORK: declared.get(NETWORK, MANY),
            **dict.fromkeys(tags, MANY)})
        if worker.status == Status.running:  # only a change of status has the scheduler look again
            worker.status = Status.paused
            worker.status = Status.running
        worker.log_event(self.name, {"joined": str(worker.name), "differences":
                                     list(differences(self._expected, found))})


def _bandwidth() -> float:
    """Returns the bytes a second that Dask assumes before it measures."""
    return float(parse_bytes(dask.config.get("distributed.scheduler.bandwidth")))


def resources_of(
    plan: Plan, step: Step, memory_bytes: int, tags: Iterable[str]
) -> dict[str, float]:
    """Returns what the last step of a plan takes of a worker, some tags among it."""
    found = {MEMORY: float(memory_bytes), **dict.fromkeys(tags, 1.0)}
    places = step.source.places if step.source is not None else ()
    if places and all(is_hub(place) for place in places):
        found[NETWORK] = 1.0
    if any(each.params.get("compiler") == "apple" for each in plan.steps.values()):
        found[APPLE] = 1.0  # a key after that step needs the compiler's version
    return found
