"""The builder: which steps of a plan are made, and the one place where a step is executed."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from sdbuild.base.digest import Key, digest
from sdbuild.base.errors import CorruptArtifact, MissingArtifact, StepError, StoreError
from sdbuild.base.machine import usable_bytes
from sdbuild.base.units import several
from sdbuild.engine.cost import Costs, Known
from sdbuild.engine.job import OtherInput, job_of, sources_read
from sdbuild.engine.memory_budget import Ram, refuse_too_large
from sdbuild.engine.named_weights import expect_named
from sdbuild.engine.plan import Plan, plan
from sdbuild.engine.process import Watch, run_step
from sdbuild.engine.shipped import expect_same_tools, shipped_for
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.stage import VIRTUAL
from sdbuild.engine.step import Step, ingredients
from sdbuild.engine.virtual import may_be_virtual, readers_allow_virtual, without_virtual
from sdbuild.recipe.settings import Settings
from sdbuild.store import SHIPPED, UNSIGNED, Entry, Record, Store, key
from sdbuild.store.remote.remote import Remote, remote_at, secret

T = TypeVar("T")
LOG = logging.getLogger(__name__)
_ROOMY_BYTES = 4 << 30
"""With so much memory for steps, a process that they are forked from may stand beside them."""
_VIRTUAL_FROM_BYTES = 64 << 20
"""The default least size of virtual files: smaller ones cost less to store than to recompute."""
Watches = Callable[[str, float | None], AbstractContextManager[Watch | None]]
"""Starts to watch a step while it runs: its name, and the seconds that it will take if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of a step: its ingredients and key if all its inputs are made, its record
    if it is made itself. `waits_for` names the inputs that are not.
    """

    step: Step
    ingredients: Mapping[str, Any] = field(default_factory=dict)
    key: Key | None = None
    record: Record | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def known_key(self) -> Key:
        """The key of a step whose inputs are all made."""
        assert self.key is not None
        return self.key


class Builder:
    """Builds the steps of a plan in a store.

    Args:
        ram_bytes: the memory for all running steps; the machine's free memory if None.
        remote: a store that is shared with other machines.
        digests: those that another machine found for what steps read, by the step's name.

    Raises:
        RecipeError: the secret for shared stores is empty.
    """

    def __init__(
        self, plan: Plan, store: Store, ram_bytes: int | None = None, remote: Remote | None = None,
        digests: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.remote = remote
        self.shipped = shipped_for(plan.recipe)
        self._has_secret = bool(secret())
        self.ram = Ram(store, usable_bytes() if ram_bytes is None else ram_bytes)
        self.checkpoints = Checkpoints(store, digests)
        self.known: Known | None = None
        self.watches: Watches = lambda step, seconds: nullcontext()
        self.uploads: Callable[[Record], bool] = lambda record: True  # else its record alone
        self.virtual_from_bytes = _VIRTUAL_FROM_BYTES

    @classmethod
    def of(cls, found: Settings) -> Builder:
        """Returns the builder that a command line asks for."""
        store = Store(found.cache)
        return cls(plan(found.recipe), store, found.ram_bytes, remote_at(found.remote, store))

    @classmethod
    def of_plans(cls, plans: Mapping[str, Plan], found: Settings) -> dict[str, Builder]:
        """Returns a builder for each plan in the store that settings name, which open each
        checkpoint and read the store's records once for all; a shared store is not asked."""
        store = Store(found.cache)
        known = Known(store, plans.values())
        builders = {name: cls(each, store, found.ram_bytes) for name, each in plans.items()}
        checkpoints = Checkpoints(store)
        for builder in builders.values():
            builder.known, builder.checkpoints = known, checkpoints
        return builders

    def __repr__(self) -> str:
        return f"{self.plan.recipe.variant} in {self.store.root}"

    @cached_property
    def costs(self) -> Costs:
        """Returns what steps will cost, by what the store knew when this was first asked."""
        return Costs(self.plan, self.store, self.checkpoints, self._record, self.known)

    def states(self, names: list[str] | None = None) -> dict[str, State]:
        """Returns the state of every step, or of those that `names` are made from, by name."""
        wanted = None if names is None else {s.name for n in names for s in self.plan.needed_by(n)}
        found: dict[str, State] = {}
        for step in self.plan.steps.values():
            if wanted is None or step.name in wanted:
                found[step.name] = self._state(step, found)
        return found

    def _record(self, name: str) -> Record | None:
        """Returns the record of a step."""
        return self.state(name).record

    def state(self, name: str) -> State:
        """Returns the state of one step."""
        return self.states([name])[name]

    def _state(self, step: Step, before: Mapping[str, State]) -> State:
        records = {name: before[source.step].record for name, source in step.inputs.items()}
        missing = tuple(step.inputs[name].step for name, found in records.items() if found is None)
        if missing:
            return State(step=step, waits_for=missing)
        inputs = {
            name: record.digest(step.inputs[name].path)
            for name, record in records.items() if record is not None
        }
        if step.stage.needs_provenance:
            inputs["provenance"] = digest("provenance", self.provenance(step, before))
        source = self.checkpoints.digests(step)
        shipped = self._shipped(step, ingredients(step, inputs, source, {}))
        tools = shipped.ingredients["tools"] if shipped else None
        found = ingredients(step, inputs, source, tools)
        made = key(found)
        record = self._believed(made) or shipped
        if record is None and self.remote is not None:
            record = self.remote.find(made, found)
        return State(step=step, ingredients=found, key=made, record=record)

    def _shipped(self, step: Step, found: Mapping[str, Any]) -> Record | None:
        """Returns the record that ships of a step with these ingredients.

        That of a graph serves only where what the plan makes of it ships too: the graph does not.
        """
        record = self.shipped.find(found) if self.shipped else None
        if record is None or self.shipped is None or self.shipped.has_content(record):
            return record
        readers = [other for other in self.plan.steps.values()
                   if any(source.step == step.name for source in other.inputs.values())]
        serves = all(self.shipped.find(ingredients(
            reader, {name: record.digest(source.path) for name, source in reader.inputs.items()},
            self.checkpoints.digests(reader), {})) for reader in readers)
        return record if serves else None

    def _believed(self, key: Key) -> Record | None:
        """Returns the record of a key in the store, unless nobody vouches for it.

        With a secret, one that was learnt without a signature counts as not there. Its files go:
        they were checked against digests that the record's author chose.
        """
        record = self.store.find(key)
        if record is not None and record.origin == SHIPPED and self.shipped is None:
            return None  # it is to be made here
        if record is None or not self._has_secret or record.origin != UNSIGNED:
            return record
        with contextlib.suppress(StoreError):  # it cannot be written to: it is not believed
            self.store.disown(record)
        return None

    def provenance(self, step: Step, states: Mapping[str, State]) -> list[dict[str, Any]]:
        """Returns how everything that `step` is made from was made, in order; no time, no place."""
        return [
            self.provenance_of(states[s.name])
            for s in self.plan.needed_by(step.name)[:-1] if states[s.name].record is not None
        ]

    def provenance_of(self, state: State) -> dict[str, Any]:
        """Returns how a step that is made was made; no time, no place.

        A key does not know in which order its ingredients were found, so nor do the bytes of what
        lists them.
        """
        assert state.record is not None
        found = {k: dict(sorted(v.items())) if isinstance(v, Mapping) else v
                 for k, v in state.ingredients.items() if k != "schema"}
        return {"step": state.step.name, "key": state.key, "output": state.record.digest(), **found}

    def reach_sources(self, names: list[str]) -> None:
        """Makes sure that what steps will read can be had, and that their networks fit each other,
        before any of them starts.

        Raises:
            SourceError, RecipeError: no place has it, two do not fit, or lack a weight with bits.
        """
        states = self.states(names).values()
        to_run = [state.step for state in states if state.record is None]
        for step in to_run:
            self.checkpoints.reach(step, self.plan.steps)
        if to_run:
            self.checkpoints.expect_fit(state.step for state in states)
        expect_named(to_run, self.plan, self.checkpoints)

    def refuse_too_large(self, names: list[str]) -> None:
        """Refuses steps that have to run and cannot fit, before anything starts.

        A step whose inputs are not made yet may turn out to be made, if it was made before.

        Raises:
            OutOfMemory: names the first of them.
        """
        for state in self.states(names).values():
            if state.record is None:
                cost = self.costs.expected(state.step.name)
                if state.key is not None or not cost.is_measured:
                    refuse_too_large(state.step, cost, self.ram.limit)

    def may_fetch(self, record: Record | None) -> bool:
        """Whether content that the store lacks may be had elsewhere."""
        return self.remote is not None or (record is not None and record.origin == SHIPPED)

    def is_made(self, name: str) -> bool:
        """Whether the step has a record, so that it need not run."""
        return self.state(name).record is not None

    def make(self, name: str, path: str = "", *, is_whole: bool = True) -> Record:
        """Returns the record of a step whose inputs are made, with its content, or one path of
        that.

        Runs the step unless it is made already, here or where the remote is.

        Args:
            is_whole: all its files are stored; if not, some may be virtual (`virtual.py`).

        Raises:
            StepError: an input is not made, or the step fails.
        """
        states = self.states([name])
        state = states[name]
        if state.key is None:
            raise StepError(f"{name}: not made yet: {', '.join(state.waits_for)}",
                            hint=f"doit {name} makes it with everything that it needs")
        with self.store.in_use(name):
            self._keep_shipped(states)
            if not self._is_here(state.record, state.step, path, is_whole):
                try:
                    return self._make(state, states, path, is_whole)
                except OtherInput:
                    return self.make_all(name, path, is_whole=is_whole)
            self.store.used(state.record)
            return state.record

    def _make(
        self, state: State, states: Mapping[str, State], path: str, is_whole: bool
    ) -> Record:
        with self.store.locked(state.known_key, state.step.name):
            record = self._believed(state.known_key)  # another build may just have made it
            if self._is_here(record, state.step, path, is_whole) \
                    or self._is_fetched(record, path):
                return record
            if record is not None and record.origin == SHIPPED:
                expect_same_tools(state.step, record)
            if flaws := self.flaws(state, path, is_whole=is_whole):
                LOG.info("   %-22sruns again: %s", state.step.name, several(flaws))
            record = self._run(state, states, is_whole)
            if self.remote is not None:
                self.remote.push(record, is_whole=self.uploads(record))
            return record

    def _keep_shipped(self, states: Mapping[str, State]) -> None:
        """Takes the records of shipped programs into the store, for who asks what was made how."""
        for state in states.values():
            record = state.record
            if record and record.origin == SHIPPED and self.store.find(record.key) is None:
                self.store.add_remote_record(record)

    def flaws(self, state: State, path: str = "", *, is_whole: bool = True) -> list[str]:
        """Returns the flaws of a step's output, as `Store.flaws` does; unless it `is_whole`, files
        that may be virtual are ignored."""
        step = state.step
        return self.store.flaws(state.known_key, path, lambda file: (
            is_whole or not may_be_virtual(step, file)))

    def file(self, record: Record, path: str) -> Path:
        """Returns a file of an artifact, to read only; fetched if only the remote has it.

        Raises:
            MissingArtifact: nobody has it.
        """
        self.fetch(record, path)
        return self.store.file(record, path)

    def fetch(self, record: Record, path: str = "") -> None:
        """Takes what the store lacks of an artifact, or of one path of it, from who has it."""
        if not self.store.has_content(record, path):
            with self.store.in_use(record.step), self.store.locked(record.key, record.step):
                self._is_fetched(record, path)

    def adopt(self, name: str, record: Record) -> None:
        """Takes the record of another key for that of a step whose inputs are made."""
        state = self.state(name)
        self.store.keep(replace(record, key=state.known_key, ingredients=state.ingredients))

    def _is_here(
        self, record: Record | None, step: Step, path: str, is_whole: bool
    ) -> TypeGuard[Record]:
        if record is None:
            return False
        stored = record if is_whole else without_virtual(step, record)
        return self.store.has_content(stored, path)

    def _is_fetched(self, record: Record | None, path: str) -> TypeGuard[Record]:
        if record is None:
            return False
        if self.shipped and self.shipped.fetch(record, self.store, path):
            return True
        return self.remote is not None and self.remote.fetch(record, path)

    def make_all(self, name: str, path: str = "", *, is_whole: bool = True) -> Record:
        """Returns the record of a step, after making everything that it is made from; `is_whole`
        is that of `make`."""
        *before, last = self.plan.needed_by(name)
        for step in before:
            if not self.is_made(step.name):
                self.make(step.name, is_whole=False)
        return self.make(last.name, path, is_whole=is_whole)

    def deliver(
        self, name: str, use: Callable[[Record], T], path: str = "", *, is_whole: bool = True
    ) -> T:
        """Makes a step and whatever it needs, and gives its artifact away, or one path of it;
        `is_whole` is that of `make`.

        Content that turns out to be missing or damaged is made anew, once.
        """
        with self.store.in_use(name):
            try:
                return use(self.make_all(name, path, is_whole=is_whole))
            except (MissingArtifact, CorruptArtifact):
                return use(self.make_all(name, path, is_whole=is_whole))

    def reads_virtual(self, step: Step, name: str, record: Record | None) -> bool:
        """Whether the input `name` of a step has virtual files now, and the step reads these."""
        maker = self.plan.steps[step.inputs[name].step]
        return (
            name in step.stage.reads_virtual and self.remote is None and record is not None
            and without_virtual(maker, record) != record and not self.store.has_content(record)
        )

    def _may_leave_virtual(self, step: Step) -> bool:
        """Whether a step may leave files virtual: all that it reads is on the store's disk."""
        return (self.remote is None and readers_allow_virtual(step, self.plan)
                and self.checkpoints.are_on_disk_of_store(step))

    def _run(self, state: State, states: Mapping[str, State], is_whole: bool) -> Record:
        step, made = state.step, state.known_key
        with self.store.workspace(made) as work:
            sources = list(sources_read(self, state, states))
            job = job_of(self, state, states, work)
            cost = self.costs.expected(step.name)
            refuse_too_large(step, cost, self.ram.limit)
            with (self.ram.reserved(step.name, cost) as memory,
                  self.watches(step.name, cost.seconds) as watch):
                started = time.monotonic()
                job["resources"] = {"memory_bytes": memory}
                if not is_whole and self._may_leave_virtual(step):
                    job["resources"]["virtual_from_bytes"] = self.virtual_from_bytes
                with self.checkpoints.expecting_unchanged(step.name, sources):
                    facts, peak = run_step(step.kind, job, work, watch,
                                           is_forked=self.ram.limit >= _ROOMY_BYTES)
                seconds = time.monotonic() - started
            virtual = [Entry(path, *found) for path, found in facts.pop(VIRTUAL, {}).items()]
            return self.store.put(work / "out", Record(
                key=made,
                step=step.name,
                ingredients=state.ingredients,
                tree=(),
                seconds=round(seconds, 3),
                peak_bytes=peak,
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                host=platform.node(),
                facts=facts | dict(step.facts),
            ), virtual)
