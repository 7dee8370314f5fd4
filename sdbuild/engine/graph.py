"""The steps of several plans as one graph, in which a step that plans share is there once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

from sdbuild.base.digest import digest
from sdbuild.checkpoints.normalized import ARCHITECTURE
from sdbuild.engine.plan import Plan
from sdbuild.engine.stage import STAGES
from sdbuild.engine.step import Step

_DIGITS = 16

Architectures = Callable[[Step], str | None]
"""Gives the digest of the architecture that a download will give, None if it is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step of some plans: `name` says all that it is made from, `needs` are the nodes before it.

    `plan` is the first of the plans that have it, in which it is called `step.name`.
    """

    name: str
    step: Step
    needs: tuple[str, ...]
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The distinct steps of some plans, each after those that it needs.

    `members` are the nodes that each plan's wanted steps are made from, by the plan's name, and
    `targets` those of the wanted steps themselves.
    """

    nodes: Mapping[str, Node]
    members: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]]

    def readers(self) -> dict[str, list[str]]:
        """Returns the nodes that read each node."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for need in node.needs:
                found[need].append(node.name)
        return found


def graph(
    plans: Mapping[str, Plan], wanted: Callable[[Plan], Iterable[str]],
    architectures: Architectures = lambda step: None,
) -> Graph:
    """Returns the steps that the `wanted` ones of some plans are made from.

    Checkpoints of one architecture share what is made from that alone, where it is known.
    """
    nodes: dict[str, Node] = {}
    members: dict[str, tuple[str, ...]] = {}
    targets: dict[str, tuple[str, ...]] = {}
    for variant, plan in plans.items():
        names: dict[str, str] = {}
        needed = {step.name for name in wanted(plan) for step in plan.needed_by(name)}
        for step in plan.steps.values():
            if step.name in needed:
                name = _name(step, names, plan, architectures)
                names[step.name] = name
                needs = dict.fromkeys(names[source.step] for source in step.inputs.values())
                nodes.setdefault(name, Node(name=name, step=step, needs=tuple(needs), plan=plan))
        members[variant] = tuple(names.values())
        targets[variant] = tuple(names[name] for name in wanted(plan))
    return Graph(nodes=nodes, members=members, targets=targets)


def _name(step: Step, names: Mapping[str, str], plan: Plan, architectures: Architectures) -> str:
    inputs = {}
    for name, source in step.inputs.items():
        maker = plan.steps[source.step]
        known = architectures(maker) if source.path == ARCHITECTURE else None
        inputs[name] = [known or names[source.step], source.path]
    found = digest("node", [
        step.kind, step.component, dict(step.params), inputs, list(step.reads), dict(step.locked),
        asdict(step.source) if step.source else None, dict(step.facts),
    ])
    return f"{step.name}-{found[:_DIGITS]}"


def in_build_order(found: Graph) -> list[str]:
    """Returns the plans so that those which share the most of what is made early stand together.

    Weights are large until they are compressed: what one group of plans made of them is still in
    the system's memory for the next plan, and may go when the group is done.
    """
    place = {name: number for number, name in enumerate(found.nodes)}

    def early_first(variant: str) -> list[int]:
        members = found.members[variant]
        return [place[name] for kind in STAGES
                for name in members if found.nodes[name].step.kind == kind]

    return sorted(found.members, key=early_first)
