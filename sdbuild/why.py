"""What a task would run, and because of which ingredient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sdbuild.build import Builder, State
from sdbuild.errors import RecipeError
from sdbuild.fields import did_you_mean
from sdbuild.plan import changes, plan
from sdbuild.settings import settings
from sdbuild.store import Record, Store


def why(task: str, words: Mapping[str, str]) -> str:
    """One line for each step that `task` needs: up to date, or why it would run.

    Raises:
        RecipeError: an unknown task or variable.
    """
    found = settings(words)
    builder = Builder(plan(found.recipe), Store(found.cache))
    names = _steps(task, builder)
    records = list(builder.store.records())
    lines = [
        f"{name:<24}{_reason(state, records)}" for name, state in builder.states(names).items()
    ]
    if task in ("build", "check", "generate"):
        record = builder.state("bundle").record
        placed = record is not None and builder.store.is_laid_out(record, found.bundle)
        lines.append(f"{'build':<24}{'up to date' if placed else 'would run: not in place'}")
    return "\n".join(lines)


def _steps(task: str, builder: Builder) -> list[str]:
    """The steps that a doit task stands for."""
    steps = list(builder.plan.steps)
    known = {"build": ["bundle"], "generate": ["bundle"],
             "check": ["bundle", *(s for s in steps if s.startswith("parity:"))]}
    known |= {name: [name] for name in steps}
    for name in steps:
        known.setdefault(name.partition(":")[0], []).append(name)
    if task not in known:
        raise RecipeError(
            f"unknown task {task!r}{did_you_mean(task, known)}",
            hint=f"the tasks are: {', '.join(k for k in known if ':' not in k)}",
        )
    return known[task]


def _reason(state: State, records: Iterable[Record]) -> str:
    if state.record is not None:
        return "up to date"
    if state.key is None:
        return f"would run: {', '.join(state.waits_for)} would run"
    before = _nearest(state, records)
    if before is None:
        return "would run: never made"
    causes = changes(before.ingredients, state.ingredients) or ["its record is gone"]
    return f"would run: {'; '.join(causes)}"


def _nearest(state: State, records: Iterable[Record]) -> Record | None:
    """The record of the same step that differs least, and of those the newest."""
    candidates = [record for record in records if record.step == state.step.name]
    return min(
        candidates,
        key=lambda r: (len(changes(r.ingredients, state.ingredients)), _age(r)),
        default=None,
    )


def _age(record: Record) -> tuple[int, ...]:
    return tuple(-ord(letter) for letter in record.made_at)
