"""Estimates the cost of a build on a cluster: tasks, seconds, bytes. It does not connect to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdbuild.base.units import counted, size
from sdbuild.cluster.uploads import is_worth_it, readers_of
from sdbuild.engine.build import Builder
from sdbuild.engine.graph import Architectures, graph
from sdbuild.engine.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimated cost of building some variants on a cluster.

    `steps` counts a step for each variant that has it, `tasks` once, and `running` are the tasks
    that are not up to date in this machine's store. Time and bytes are those of similar steps that
    ran; `timeless` and `sizeless` count the tasks without such a step.

    Units:
        seconds: of one worker; made_bytes, uploaded_bytes: of the tasks that run.
    """

    steps: int
    tasks: int
    running: int
    seconds: float
    timeless: int
    made_bytes: int
    uploaded_bytes: int
    sizeless: int

    def __str__(self) -> str:
        times = f" ({self.timeless} of unknown time)" if self.timeless else ""
        sizes = f" ({counted(self.sizeless, 'task')} of unknown size)" if self.sizeless else ""
        return (f"on a cluster: {counted(self.steps, 'step')} of all variants are "
                f"{counted(self.tasks, 'task')}, of which {self.running} would run{times}: about "
                f"{self.seconds:.0f} s of one worker\n"
                f"uploads: about {size(self.uploaded_bytes)} of {size(self.made_bytes)}{sizes}")


def estimate(
    builders: Mapping[str, Builder], wanted: Callable[[Plan], Sequence[str]],
    architectures: Architectures, bytes_s: float,
) -> Estimate:
    """Returns what the wanted steps of some builders' plans would take on a cluster.

    Units:
        bytes_s: bytes a second that go to the shared store.
    """
    plans = {name: builder.plan for name, builder in builders.items()}
    found = graph(plans, wanted, architectures)
    readers = readers_of(found, plans)
    maker = {node: name for name in reversed(list(builders)) for node in found.members[name]}
    remake_s: dict[str, float] = {}
    seconds, sizes, uploaded = [], [], []
    for node in found.nodes.values():
        builder = builders[maker[node.name]]
        remake_s[node.name] = 0.0
        if builder.is_made(node.step.name):
            continue
        cost = builder.costs.expected(node.step.name)
        again_s = (cost.seconds or 0.0) + sum(remake_s[need] for need in node.needs)
        count = cost.size_bytes or 0
        is_sent = is_worth_it(readers[node.name], count, again_s, bytes_s)
        remake_s[node.name] = 0.0 if is_sent else again_s
        seconds.append(cost.seconds)
        sizes.append(cost.size_bytes)
        uploaded.append(count if is_sent else 0)
    return Estimate(
        steps=sum(map(len, found.members.values())), tasks=len(found.nodes), running=len(seconds),
        seconds=sum(each or 0.0 for each in seconds), timeless=seconds.count(None),
        made_bytes=sum(each or 0 for each in sizes), uploaded_bytes=sum(uploaded),
        sizeless=sizes.count(None))
