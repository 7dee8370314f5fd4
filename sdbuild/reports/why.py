"""The steps that a task would run, the ingredient that changed, and the cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import counted, several, size
from sdbuild.bundle.install import install_problem
from sdbuild.checkpoints import is_hub
from sdbuild.engine.build import Builder, State
from sdbuild.engine.graph import Graph
from sdbuild.engine.plan import Plan, plan
from sdbuild.engine.sources import Checkpoints
from sdbuild.recipe.fields import OF_CHECKPOINT
from sdbuild.recipe.recipe import load
from sdbuild.recipe.settings import settings
from sdbuild.reports.causes import causes, differences
from sdbuild.reports.lineage import Lineage
from sdbuild.store import Record, Store
from sdbuild.store.json_cache import Notes

UP_TO_DATE = "up to date"
WOULD_RUN = "would run"
_OF_BUNDLE = ("build", "contract", "generate", "report")
"""The tasks that need the bundle in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """The state of a step, and the reasons why it would run.

    `causes` are the first cause and what else changed. Of a step that waits they are those of
    `after`, the step that changes what it is made from; if that gives the same bytes as before,
    the waiting step stays as it is.

    The cost was measured (`is_measured`), is that of a similar step, or an estimate by the size of
    the network alone (`is_estimate`).

    `is_fetched` is a download of a checkpoint that is not on this machine.

    Units:
        seconds: wall clock, None if not even that is known; peak_bytes: anonymous memory;
        size_bytes: those of its artifact, as of a similar step, None if none ran.
    """

    step: str
    state: str
    causes: tuple[str, ...] = ()
    after: str = ""
    seconds: float | None = None
    peak_bytes: int | None = None
    is_measured: bool = False
    is_estimate: bool = False
    size_bytes: int | None = None
    is_fetched: bool = False

    def __str__(self) -> str:
        if self.state == UP_TO_DATE:
            return f"{self.step:<23} {self.state}"
        after = f"after {self.after}, " if self.after else ""
        return f"{self.step:<23} {self.state}: {after}{several(self.causes)}{self._cost()}"

    def _cost(self) -> str:
        if self.peak_bytes is None:
            return ""
        about = "" if self.is_measured else "estimate: " if self.is_estimate else "about "
        seconds = "" if self.seconds is None else f"{self.seconds:.1f} s, "
        return f"  [{about}{seconds}{size(self.peak_bytes)} memory]"


def why(task: str, words: Mapping[str, str]) -> list[Reason]:
    """Returns a reason for each step that `task` needs, and for the bundle in its place.

    Raises:
        RecipeError: an unknown task or variable.
        SourceError: a LoRA or an embedding would be refused before anything runs.
        ContractBroken: no host could use the bundle.
    """
    found = settings(words)
    builder = Builder.of(found)
    builder.plan.expect(steps_of(task, builder.plan))
    usual = (*OF_CHECKPOINT, "size") if found.recipe.found else ("model", "source")
    plain = plan(load({name: words[name] for name in usual if name in words},
                      facts=Notes(builder.store, "hub")))
    states = builder.states(steps_of(task, builder.plan))
    _check_added(states.values(), builder)
    record = builder.state("bundle").record if task in _OF_BUNDLE else None
    what = install_problem(record, builder.store, found.bundle) if record else "not installed"
    is_given = task == "report" or task not in _OF_BUNDLE or what
    given = steps_of(task, builder.plan) if is_given else []
    flaws = _flaws(states, given, builder, is_whole=task in (*_OF_BUNDLE, "check"))
    lineage = Lineage(builder.store.records())
    reasons: dict[str, Reason] = {}
    for name, state in states.items():
        reasons[name] = _reason(state, reasons, builder, lineage, plain, flaws.get(name, ()))
    if task in _OF_BUNDLE:
        reasons["build"] = Reason(step="build", state=WOULD_RUN, causes=(what,)) if what else \
            Reason(step="build", state=UP_TO_DATE)
    return list(reasons.values())


def _check_added(states: Iterable[State], builder: Builder) -> None:
    """Makes sure that what would be added to a checkpoint, which lies on this machine, fits it."""
    for state in states:
        source = state.step.source
        if state.record is None and source is not None and source.are_files:
            builder.checkpoints.reach(state.step, builder.plan.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The commit that stands for a place which may have moved since it was asked."""

    place: str
    commit: str
    is_locked: bool

    def __str__(self) -> str:
        how = "locked" if self.is_locked else "as first resolved: sdbuild refresh"
        return f"{'source':<23} {self.place} is at {self.commit}, {how}"


def standings(words: Mapping[str, str]) -> list[Standing]:
    """Returns the commits that stand for the recipe's places on the Hub, without asking it.

    Raises:
        RecipeError: an unknown variable.
    """
    found = settings(words)
    sources, known = found.recipe.sources, Checkpoints(Store(found.cache))
    commits = sources.lock.commits if sources.lock else {
        place: known.commit(place) for source in sources.checkpoints for place in source.places
    }
    return [Standing(place=place, commit=commit, is_locked=sources.lock is not None)
            for place, commit in commits.items() if commit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The cost of some steps together; those that variants share count once.

    `steps` counts a step for each variant that has it, `distinct` once, and `running` are those of
    the latter that would run. Of these `estimated` have a time by the size of the network alone,
    and `timeless` none. Bytes are those of similar steps that ran; `sizeless` have none.

    Units:
        seconds: wall clock, one after the other; peak_bytes: memory of the largest; made_bytes,
        fetched_bytes: of all artifacts, and of checkpoints that are downloaded.
    """

    steps: int
    distinct: int
    running: int
    seconds: float
    estimated: int
    timeless: int
    peak_bytes: int
    made_bytes: int
    fetched_bytes: int
    sizeless: int

    @classmethod
    def of(cls, reasons: Iterable[Reason], steps: int, distinct: int) -> Total:
        """Returns the total of the reasons of distinct steps."""
        running = [reason for reason in reasons if reason.peak_bytes is not None]
        return cls(
            steps=steps, distinct=distinct, running=len(running),
            seconds=sum(reason.seconds or 0.0 for reason in running),
            estimated=sum(r.is_estimate and r.seconds is not None for r in running),
            timeless=sum(reason.seconds is None for reason in running),
            peak_bytes=max((reason.peak_bytes or 0 for reason in running), default=0),
            made_bytes=sum(reason.size_bytes or 0 for reason in running),
            fetched_bytes=sum(reason.size_bytes or 0 for reason in running if reason.is_fetched),
            sizeless=sum(reason.size_bytes is None for reason in running))

    @property
    def would_run(self) -> str:
        """The steps that would run, with their time and memory."""
        is_known = self.timeless < self.running
        notes = [f"{self.estimated} estimated by the size of the network"] if self.estimated else []
        notes += [f"{self.timeless} of unknown time"] if self.timeless and is_known else []
        time = f"about {self.seconds:.0f} s one after the other" if is_known else "unknown time"
        said = f" ({', '.join(notes)})" if notes else ""
        return (f"{counted(self.running, 'step')} would run{said}: {time}, "
                f"{size(self.peak_bytes)} memory for the largest")

    def __str__(self) -> str:
        """The cost of all variants, in lines."""
        shared = (f"{counted(self.steps, 'step')} of all variants, {self.distinct} without "
                  "repetitions")
        if not self.running:
            return f"{shared}: all up to date"
        sizeless = f" ({counted(self.sizeless, 'step')} of unknown size)" if self.sizeless else ""
        written = (f"{size(self.made_bytes)} would be written, {size(self.fetched_bytes)} of it "
                   f"downloaded{sizeless}") if self.sizeless < self.running else \
            "how many bytes would be written is unknown: nothing like it ran here"
        return f"{shared}\n{self.would_run}\n{written}"


def total(of: Graph, reasons: Mapping[str, Iterable[Reason]]) -> Total:
    """Returns what variants would take together.

    Args:
        of: the graph of their steps.
        reasons: those of the steps of each variant, by its name.
    """
    found: dict[str, Reason] = {}
    for variant, of_variant in reasons.items():
        by_step = {reason.step: reason for reason in of_variant}
        for node in of.members[variant]:
            found.setdefault(node, by_step[of.nodes[node].step.name])
    return Total.of(found.values(), sum(map(len, of.members.values())), len(of.nodes))


def format_reasons(reasons: Iterable[Reason]) -> str:
    """Reasons as people read them, and what all of it will take."""
    reasons = list(reasons)
    found = Total.of(reasons, len(reasons), len(reasons))
    return "\n".join([*map(str, reasons), *([found.would_run] if found.running else [])])


def steps_of(task: str, of: Plan) -> list[str]:
    """Returns the steps that a doit task stands for."""
    steps = list(of.steps)
    known = {name: ["bundle"] for name in _OF_BUNDLE}
    known["check"] = [name for name in steps if name.startswith(("parity:", "pictures"))]
    known["report"] = ["bundle", *known["check"]]
    known |= {name: [name] for name in steps}
    for name in steps:
        known.setdefault(name.partition(":")[0], []).append(name)
    if task not in known:
        raise RecipeError(
            f"unknown task {task!r}{did_you_mean(task, known)}",
            hint=f"the tasks are: {', '.join(k for k in known if ':' not in k)}",
        )
    return known[task]


def _flaws(
    states: Mapping[str, State], given: Iterable[str], builder: Builder, *, is_whole: bool
) -> dict[str, tuple[str, ...]]:
    """Returns the faults of needed artifacts, as far as sizes and times show them
    and no shared store may have it.

    Args:
        given: the steps whose artifacts are wanted themselves; of others, what running steps read.
        is_whole: all files of these are wanted; if not, some may be virtual.
    """
    needed: dict[str, set[tuple[str, bool]]] = {name: {("", is_whole)} for name in given}
    found: dict[str, tuple[str, ...]] = {}
    for name, state in reversed(list(states.items())):
        parts = sorted(needed.get(name, ())) if state.record else [("", True)]
        if state.key is not None and not builder.may_fetch(state.record):
            flaws = (flaw for path, all_files in parts
                     for flaw in builder.flaws(state, path, is_whole=all_files))
            found[name] = tuple(dict.fromkeys(flaws))
        if state.record is None or found.get(name):
            for step, path, all_files in _read(state, states, builder):
                needed.setdefault(step, set()).add((path, all_files))
    return found


def _read(
    state: State, states: Mapping[str, State], builder: Builder
) -> Iterator[tuple[str, str, bool]]:
    """Yields the inputs that a step will read: the step, the path, and whether all files of it."""
    for name, source in state.step.inputs.items():
        maker = states[source.step]
        is_virtual = builder.reads_virtual(state.step, name, maker.record)
        yield source.step, source.path, not is_virtual
        if is_virtual:
            yield from _read(maker, states, builder)


def _reason(
    state: State, before: Mapping[str, Reason], builder: Builder, lineage: Lineage, plain: Plan,
    flaws: tuple[str, ...],
) -> Reason:
    name, source = state.step.name, state.step.source
    if state.record is not None and not flaws:
        return Reason(step=name, state=UP_TO_DATE)
    if state.key is None:
        first = before[state.waits_for[0]]
        found, after = first.causes, first.after or first.step
    else:
        found, after = flaws or tuple(_causes(state, lineage, plain)), ""
    cost = builder.costs.expected(name)
    return Reason(step=name, state=WOULD_RUN, causes=found, after=after, seconds=cost.seconds,
                  peak_bytes=cost.peak_bytes, is_measured=cost.is_measured,
                  is_estimate=cost.is_estimate, size_bytes=cost.size_bytes,
                  is_fetched=source is not None and all(map(is_hub, source.places)))


def _causes(state: State, lineage: Lineage, plain: Plan) -> list[str]:
    nearest = _nearest(state, lineage)
    if nearest is None:
        return ["never made"]
    usual = plain.steps.get(state.step.name)
    params = usual.params if usual else {}
    return causes(nearest, state.ingredients, lineage, params) or ["its record is gone"]


def _nearest(state: State, lineage: Lineage) -> Record | None:
    """Returns the record of the same step that differs least, and of those the newest."""
    candidates = [r for r in reversed(lineage.records.values()) if r.step == state.step.name]
    return min(
        candidates, key=lambda r: len(differences(r.ingredients, state.ingredients)), default=None
    )
