"""A build on many machines: the distinct steps of some variants, handed to the workers of Dask."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import dask
from distributed import as_completed
from distributed.scheduler import KilledWorker

from sdbuild.base.errors import OutOfMemory, RecipeError, SDBuildError, StepError, ToolMissing
from sdbuild.base.units import counted, size
from sdbuild.cluster.address import Cluster, connected
from sdbuild.cluster.fit import Resources, Stranded, Watch, fitted, is_served, unserved
from sdbuild.cluster.local import local_places, read_here, readable
from sdbuild.cluster.order import priorities
from sdbuild.cluster.task import FAILED, FOUND, RAN, StepFailed, Task, make
from sdbuild.cluster.uploads import readers_of
from sdbuild.cluster.worker import (
    Admission,
    differences,
    place_tag,
    resources_of,
    tag_of,
    traits,
)
from sdbuild.engine.build import Builder
from sdbuild.engine.cost import Cost
from sdbuild.engine.graph import Architectures, Node, graph
from sdbuild.engine.plan import Plan
from sdbuild.engine.step import Step
from sdbuild.store.remote.remote import Remote, remote_at

Say = Callable[[str], None]
_PATIENCE_S = 60
_UNKNOWN_S = 1.0
"""The time of a step of which nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request to build: a builder for each variant by its name, and the steps of each plan.

    `architectures` tells what checkpoints share, `remote` is the shared store, `jobs` how many
    steps run at a time on a cluster here, `patience_s` how many seconds a step waits for a worker
    that it fits, after the last of them has left.
    """

    builders: Mapping[str, Builder]
    steps: Callable[[Plan], Sequence[str]]
    architectures: Architectures
    remote: str | None
    jobs: int
    patience_s: float = 600


def build_on(address: str, wanted: Wanted, say: Say) -> dict[str, SDBuildError]:
    """Makes the steps of all variants; the error of each variant that failed, by its name.

    A step that failed may have been made for another variant as well, from a checkpoint of which
    this one needs the architecture alone: then it is tried again from its own.

    Raises:
        RecipeError: the address cannot be used, no shared store is named, or a worker has other
            tools.
        StepError: nothing answers.
    """
    with connected(address, wanted.jobs) as cluster:
        if not cluster.is_here and wanted.remote is None:
            raise RecipeError(f"--on {address}: no shared store is named",
                              hint="add remote=URL: artifacts go between machines through it")
        if not cluster.is_here and wanted.remote is not None:
            Remote(wanted.remote, next(iter(wanted.builders.values())).store).claim()
        say(f"   dashboard: {cluster.client.dashboard_link}")
        _wait_for_workers(cluster.client)
        steps = [step for each in wanted.builders.values() for step in each.plan.steps.values()]
        are_readable = readable(cluster.client, steps)
        failed = read_here(wanted.builders, are_readable, wanted.remote)
        left = [name for name in wanted.builders if name not in failed]
        while left:
            run = _Run(cluster, wanted, left, are_readable, say)
            errors = run.run()
            own = {name: found.error for name, found in errors.items()
                   if not found.node or found.node in run.graph.members[name]}
            failed |= own
            left = [name for name in errors if name not in own]
        return failed


def _wait_for_workers(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except TimeoutError:
        raise StepError(f"--on: no worker has joined for {_PATIENCE_S} s",
                        hint="start some: dask worker ADDRESS") from None


class _Run:
    """One pass over the steps of some variants."""

    def __init__(
        self, cluster: Cluster, wanted: Wanted, names: Sequence[str],
        are_readable: frozenset[str], say: Say,
    ) -> None:
        self._cluster = cluster
        self._readable = are_readable
        self._wanted = wanted
        self._say = say
        self._topic = f"sdbuild-{uuid.uuid4().hex[:12]}"
        self._share = None if cluster.is_here else wanted.remote
        self._expected = traits(self._share)
        self._asked: dict[str, dict[str, float]] = {}
        self._seconds: dict[str, float] = {}
        self._given_up: dict[str, SDBuildError] = {}
        self._take(names)
        self._ended: dict[str, str] = {}
        self._lock = threading.Lock()

    def _take(self, names: Sequence[str]) -> None:
        """Takes the steps of some variants."""
        self._builders = {name: self._wanted.builders[name] for name in names}
        self.graph = graph({name: builder.plan for name, builder in self._builders.items()},
                           self._wanted.steps, self._wanted.architectures)
        self._maker = {node: name for name in reversed(names) for node in self.graph.members[name]}

    def run(self) -> dict[str, StepFailed]:
        """Makes all steps; what failed, by variant."""
        client = self._cluster.client
        client.subscribe_topic(self._topic, self._heard)
        client.register_plugin(self._admission(), name=self._topic)
        try:
            self._check_workers()
            failed = self._refused()
            targets = self._submitted()
            with Watch(self._stranded, self._tell_stranded, lambda late: self._give_up(
                    late, targets), self._wanted.patience_s):
                failed |= self._failures(targets)
        finally:
            with contextlib.suppress(Exception):
                if client.status == "running":  # else it waits for a scheduler that is gone
                    client.unregister_worker_plugin(self._topic)
                    client.unsubscribe_topic(self._topic)
        ended = list(self._ended.values())
        self._say(f"   {counted(ended.count(RAN), 'step')} ran, "
                  f"{counted(ended.count(FOUND), 'step')} up to date")
        return failed

    def _admission(self) -> Admission:
        ram = next(iter(self._builders.values())).ram.limit if self._cluster.is_here else None
        return Admission(self._expected, tuple(sorted(self._readable)), self._topic,
                         self._share, ram)

    def _workers(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._cluster.client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _check_workers(self) -> None:
        """Makes sure that the workers have the tools of this machine.

        Raises:
            ToolMissing: one has others; names them.
        """
        for address, found in self._cluster.client.run(traits, self._share).items():
            differing = differences(self._expected, found)
            if differing:
                name = self._workers().get(address, {}).get("id", address)
                raise ToolMissing(
                    f"the worker {name} at {address} cannot be used: {'; '.join(differing)}",
                    hint="all machines need the same versions and code (pip install --constraint), "
                         "the same secret, and a remote= that is one place for all; or stop it")

    def _refused(self) -> dict[str, StepFailed]:
        """Leaves out the variants with a step that fits no worker; why, by variant."""
        workers = [each["resources"] for each in self._workers().values()]
        errors: dict[str, SDBuildError] = {}
        for node in self.graph.nodes.values():
            cost = self._builders[self._maker[node.name]].costs.expected(node.step.name)
            asked = self._asks(node, cost, workers)
            self._asked[node.name] = asked
            self._seconds[node.name] = _UNKNOWN_S if cost.seconds is None else cost.seconds
            if not is_served(asked, workers):
                errors[node.name] = unserved(node.step.name, asked, workers)
        failed = {name: StepFailed("", errors[first])
                  for name, members in self.graph.members.items()
                  if (first := next((each for each in members if each in errors), None))}
        if failed:
            self._take([name for name in self._builders if name not in failed])
        return failed

    def _asks(self, node: Node, cost: Cost, workers: Sequence[Resources]) -> dict[str, float]:
        """Returns what a step asks of a worker; one that is made already, the tools alone."""
        tag = tag_of(self._expected)
        asked = fitted(resources_of(_plan_of(node), node.step, cost.least_bytes,
                                    [tag, *self._place_tags(node.step)]),
                       workers, cost.is_measured)
        if is_served(asked, workers):
            return asked
        with contextlib.suppress(SDBuildError):  # then it is not made
            if self._sharing(node).is_made(node.step.name):
                return {tag: 1.0}
        return asked

    def _sharing(self, node: Node) -> Builder:
        """Returns the builder of a step that asks the shared store."""
        builder = self._builders[self._maker[node.name]]
        return Builder(node.plan, builder.store, builder.ram.limit,
                       remote_at(self._wanted.remote, builder.store))

    def _submitted(self) -> dict[Any, list[str]]:
        """Hands out all steps; the futures of those that are wanted, with their variants."""
        client = self._cluster.client
        plans = {name: each.plan for name, each in self._builders.items()}
        workers = len(self._workers())
        readers = readers_of(self.graph, plans, workers)
        priority = priorities(self.graph, self._seconds, workers)
        self._tell_seconds()
        futures: dict[str, Any] = {}
        for node in self.graph.nodes.values():
            builder = self._builders[self._maker[node.name]]
            plan = _plan_of(node)
            task = Task(
                node=node.name, step=node.step.name, plan=plan, readers=readers[node.name],
                topic=self._topic, digests=_digests(builder, plan),
                cache=builder.store.root if self._cluster.is_here else None,
                remote=self._wanted.remote)
            futures[node.name] = client.submit(
                make, task, *(futures[need] for need in node.needs), key=node.name, retries=0,
                resources=self._asked[node.name], priority=priority[node.name], pure=False)
        targets: dict[Any, list[str]] = {}
        for name, nodes in self.graph.targets.items():
            for node_name in nodes:
                targets.setdefault(futures[node_name], []).append(name)
        return targets

    def _tell_seconds(self) -> None:
        """Tells the scheduler how long steps take, by their names. It takes each for half a second
        until one has run, and moves none to a worker that is free."""
        of_name: dict[str, list[float]] = {}
        for node in self.graph.nodes.values():
            of_name.setdefault(node.step.name, []).append(self._seconds[node.name])
        durations = {name: fmean(each) for name, each in of_name.items()}
        self._cluster.client.run_on_scheduler(dask.config.update_defaults, {
            "distributed": {"scheduler": {"default-task-durations": durations}}})

    def _place_tags(self, step: Step) -> list[str]:
        """Returns the tags of workers that can read what a step reads, if any can."""
        places = local_places(step)
        return list(map(place_tag, places)) if self._readable.issuperset(places) else []

    def _failures(self, targets: Mapping[Any, list[str]]) -> Iterator[tuple[str, StepFailed]]:
        for future in as_completed(list(targets)):
            if future.status == "finished":
                self._fetch(self.graph.nodes[future.key])
                continue
            for name in targets[future]:
                yield name, self._as_failed(future)

    def _fetch(self, node: Node) -> None:
        """Fetches a wanted artifact into this machine's store while the rest is made. If that
        fails, the error comes when the artifact is used."""
        with contextlib.suppress(SDBuildError):
            sharing = self._sharing(node)
            record = sharing.state(node.step.name).record
            if record is not None:
                sharing.fetch(record)

    def _as_failed(self, future: Any) -> StepFailed:
        if future.status == "error":
            return _as_failed(future.exception())
        return StepFailed("", self._given_up.get(future.key) or StepError(
            "--on: the scheduler is gone",
            hint="run the same command again: it continues with the steps that are done"))

    def _stranded(self) -> Stranded:
        """Returns the steps that wait for a worker that they fit, as the scheduler sees it."""
        client = self._cluster.client
        with contextlib.suppress(OSError):  # no scheduler: it ends the futures, too
            states = client.sync(client.scheduler.get_task_status, keys=list(self.graph.nodes))
            names = [name for name, state in states.items() if state == "no-worker"]
            workers = [each["resources"] for each in self._workers().values()] if names else []
            return {name: unserved(self.graph.nodes[name].step.name, self._asked[name], workers)
                    for name in names}
        return {}

    def _tell_stranded(self, found: Stranded) -> None:
        first = next(iter(found.values()))
        others = f" (and {counted(len(found) - 1, 'other step')})" if len(found) > 1 else ""
        self._say(f"   {first.message}{others}: waits until one joins, "
                  f"{self._wanted.patience_s:.0f} s at most")

    def _give_up(self, late: Stranded, targets: Mapping[Any, list[str]]) -> None:
        """Ends what is made of steps that waited too long."""
        ended = []
        for future, names in targets.items():
            step = next((each for name in names for each in self.graph.members[name]
                         if each in late), None)
            if step is not None and future.key not in self._given_up:
                self._given_up[future.key] = late[step]
                ended.append(future)
        self._cluster.client.cancel(ended)

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Prints an event of a worker."""
        told = event[1]
        with self._lock:
            if "joined" in told:
                self._tell_joined(told)
                return
            if told["state"] == FOUND and told["node"] in self._ended:
                return  # looked up again, as the worker that had it died
            self._ended[told["node"]] = told["state"]
            head = f"   [{len(self._ended)}/{len(self.graph.nodes)}] {told['step']:<22}"
            if told["state"] == FAILED:
                lines = [f"{head}failed on {told['machine']}"]
            elif told["state"] == FOUND:
                lines = []
            else:
                lines = [f"{head}{told['seconds']:6.1f} s  {size(told['peak_bytes']):>8} memory  "
                         f"{size(told['size_bytes']):>8}  {told['key'][:8]}  {told['machine']}"]
            for line in [*lines, *(f"{'':<12}{line}" for line in told["lines"])]:
                self._say(line)

    def _tell_joined(self, told: Mapping[str, Any]) -> None:
        if told["differences"]:
            self._say(f"   {told['joined']} joined and gets no steps: "
                      f"{'; '.join(told['differences'])}")


def _as_failed(error: BaseException) -> StepFailed:
    if isinstance(error, StepFailed):
        return error
    if isinstance(error, KilledWorker):
        step = str(error.task).rpartition("-")[0]
        return StepFailed(str(error.task), OutOfMemory(
            f"{step}: {error.allowed_failures + 1} workers died while they ran it, the last of "
            f"them {error.last_worker.address}",
            hint="most likely they had too little memory: dask worker --resources memory=BYTES"))
    return StepFailed("", StepError(f"{type(error).__name__}: {error}"))


def _plan_of(node: Node) -> Plan:
    """Returns the part of a node's plan that its step is made from."""
    plan = node.plan
    return Plan(recipe=plan.recipe,
                steps={step.name: step for step in plan.needed_by(node.step.name)})


def _digests(builder: Builder, plan: Plan) -> dict[str, dict[str, str]]:
    """Returns what the steps of a plan read from outside, by digests that this machine knows."""
    found = {}
    for step in plan.steps.values():
        if step.source is not None:
            with contextlib.suppress(SDBuildError):  # the step says what is wrong, where it runs
                found[step.name] = builder.checkpoints.digests(step)
    return found
