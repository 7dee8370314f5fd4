"""Decides which artifacts a worker uploads to the shared store: those that others get faster that
way.

A bundle's own files go there, and whatever its steps read from several machines. Of the others the
bytes are weighed against making them again: where sending takes less time than making, they go.
What only steps of one checkpoint read mostly stays on the machine that made it, so its time to make
counts a tenth. Records always go: a kilobyte, by which every machine knows every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdbuild.engine.graph import Graph
from sdbuild.engine.plan import Plan

LINK_BYTES_S = 125e6
"""Bytes a second that a machine sends: a gigabit network."""

MOVED = 0.1
"""The share of steps that run on another machine than the steps before them of the same
checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Readers of an artifact: the machine that asked for the build or a bundle's step (`are_last`),
    and steps of several checkpoints (`are_many`)."""

    are_last: bool
    are_many: bool


def readers_of(found: Graph, plans: Mapping[str, Plan]) -> dict[str, Readers]:
    """Returns who reads the artifact of each node of the graph of some plans."""
    wanted = {name for names in found.targets.values() for name in names}
    readers = {}
    for name, nodes in found.readers().items():
        variants = [each for each, members in found.members.items() if name in members]
        checkpoints = {plans[each].recipe.sources.checkpoint for each in variants}
        readers[name] = Readers(are_last=name in wanted or bool(wanted & set(nodes)),
                                are_many=len(checkpoints) > 1)
    return readers


def is_worth_it(
    readers: Readers, size_bytes: int, remake_s: float, link_bytes_s: float = LINK_BYTES_S
) -> bool:
    """Whether an artifact is uploaded that takes `remake_s` seconds to make again."""
    chance = 1.0 if readers.are_many else MOVED
    return readers.are_last or size_bytes / link_bytes_s < chance * remake_s
