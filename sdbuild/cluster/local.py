"""Checkpoints on a disk, which some machines can read and others cannot.

A step that reads one runs where it lies. What no worker can read is read by the machine that asks
for the build, and goes to the shared store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SDBuildError
from sdbuild.checkpoints import is_hub
from sdbuild.engine.build import Builder
from sdbuild.engine.step import Step
from sdbuild.store.remote.remote import remote_at


def local_places(step: Step) -> tuple[str, ...]:
    """Returns the paths that a step reads on this machine; none if it reads from the Hub."""
    if step.source is None:
        return ()
    paths = [place for place in step.source.places if not is_hub(place)]
    if step.source.are_files:
        return tuple(paths)
    return tuple(path for path in paths if Path(path).exists())[:1]


def existing(paths: Sequence[str]) -> list[str]:
    """Returns those of some paths that are on this machine."""
    return [path for path in paths if Path(path).exists()]


def readable(client: Any, steps: Iterable[Step]) -> frozenset[str]:
    """Returns the paths of steps that some worker can read."""
    paths = sorted({place for step in steps for place in local_places(step)})
    found = client.run(existing, paths).values() if paths else ()
    return frozenset(path for each in found for path in each)


def read_here(
    builders: Mapping[str, Builder], are_readable: frozenset[str], remote: str | None
) -> dict[str, SDBuildError]:
    """Runs the steps that read what no worker can; the error of each plan that failed, by its
    name."""
    failed: dict[str, SDBuildError] = {}
    for name, builder in builders.items():
        sharing = Builder(builder.plan, builder.store, builder.ram.limit,
                          remote_at(remote, builder.store))
        for step in builder.plan.steps.values():
            if not are_readable.issuperset(local_places(step)):
                try:
                    sharing.make_all(step.name)
                except SDBuildError as error:
                    failed[name] = error
                    break
    return failed
