"""Decides which artifacts a worker uploads to the shared store: those that others get faster that
way.

A bundle's own files go there, and whatever its steps read from several machines. Of the others the
bytes are weighed against making them again: where sending takes less time than making, they go.
What only steps of one checkpoint read mostly stays on the machine that made it, if there are as
many checkpoints as machines, so its time to make counts a tenth. Records always go, with files of
less than a megabyte: by them every machine knows every key and every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdbuild.engine.graph import Graph
from sdbuild.engine.plan import Plan

MOVED = 0.1
"""The share of steps that run on another machine than the steps before them of the same
checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Readers of an artifact: the machine that asked for the build or a bundle's step (`are_last`),
    and steps that several machines run (`are_spread`)."""

    are_last: bool
    are_spread: bool


def readers_of(found: Graph, plans: Mapping[str, Plan], workers: int = 1) -> dict[str, Readers]:
    """Returns who reads the artifact of each node of the graph of some plans.

    Steps are spread if they are of several checkpoints, or if there are more workers than
    checkpoints.
    """
    wanted = {name for names in found.targets.values() for name in names}
    are_few = len({plan.recipe.sources.checkpoint for plan in plans.values()}) < workers
    readers = {}
    for name, nodes in found.readers().items():
        variants = [each for each, members in found.members.items() if name in members]
        checkpoints = {plans[each].recipe.sources.checkpoint for each in variants}
        readers[name] = Readers(are_last=name in wanted or bool(wanted & set(nodes)),
                                are_spread=are_few or len(checkpoints) > 1)
    return readers


def is_worth_it(readers: Readers, size_bytes: int, remake_s: float, bytes_s: float) -> bool:
    """Whether to upload an artifact that takes `remake_s` seconds to make again.

    Units:
        bytes_s: bytes a second that go to the shared store.
    """
    chance = 1.0 if readers.are_spread else MOVED
    return readers.are_last or size_bytes / bytes_s < chance * remake_s


def moved_s(size_bytes: int, remake_s: float, bytes_s: float) -> float:
    """Returns the seconds in which another machine has an artifact: made again, or, where nothing
    need be, fetched."""
    return remake_s or size_bytes / bytes_s
