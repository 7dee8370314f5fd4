"""Outcomes of coremltools' tests, by the operation that each one tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

STATUSES = ("passed", "failed", "not applicable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test: `reason` says why it failed or why it does not apply."""

    test: str
    family: str
    operation: str
    status: str
    reason: str = ""


def operation_of(class_name: str, parameters: Mapping[str, object], names: Iterable[str]) -> str:
    """The operation that a test is of: named by its class, else by a parameter.

    A parameter may leave out the family: `mode="argmax"` of `TestReduction` is `reduce_argmax`.
    """
    known = set(names)
    squeezed = {name.replace("_", ""): name for name in known}
    own = class_name.removeprefix("Test")
    if own.lower() in squeezed:
        return squeezed[own.lower()]
    for value in parameters.values():
        for name in (f"reduce_{value}", value):
            if isinstance(value, str) and name in known:
                return name
    return own


def sampled(operations: Sequence[str], count: int) -> list[int]:
    """The positions of at most `count` tests of each operation, evenly spread."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, operation in enumerate(operations):
        positions[operation].append(position)
    chosen = []
    for found in positions.values():
        step = max(1, len(found) / count)
        chosen += [found[int(i * step)] for i in range(min(count, len(found)))]
    return sorted(chosen)


def counts(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], Counter]:
    """Returns the number of tests with each status, by (family, operation)."""
    found: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for outcome in outcomes:
        found[outcome.family, outcome.operation][outcome.status] += 1
    return dict(sorted(found.items()))


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table, a line for each operation, and the reasons below it."""
    rows = [(*key, *(found[s] for s in STATUSES)) for key, found in counts(outcomes).items()]
    total = Counter(outcome.status for outcome in outcomes)
    rows.append(("**all**", "", *(total[s] for s in STATUSES)))
    lines = ["| family | operation | passed | failed | not applicable |",
             "| --- | --- | ---: | ---: | ---: |"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", *_reasons(outcomes)])


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the reasons why tests failed or do not apply, the most frequent first."""
    lines = []
    for status in STATUSES[1:]:
        found: dict[str, set[str]] = defaultdict(set)
        number: Counter = Counter()
        for outcome in outcomes:
            if outcome.status == status:
                reason = outcome.reason[:160]
                found[reason].add(outcome.operation)
                number[reason] += 1
        lines += [f"**{status.capitalize()}**", ""] if found else []
        lines += [f"- {count} × {reason} ({_some(found[reason])})"
                  for reason, count in number.most_common()]
        lines += [""] if found else []
    return lines


def _some(names: set[str], most: int = 6) -> str:
    first = sorted(names)[:most]
    return ", ".join(first) + (f" and {len(names) - most} more" if len(names) > most else "")
