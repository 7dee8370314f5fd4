"""A small language to find artifacts by what they were made of, and what they cost.

    step=convert:unet  tool.coremltools<9  params.nbits=4  seconds>60  size>1G  made<2026-01-01

A term is a field, an operator and a value; an artifact is found if all terms hold. Text may have
`*` in it. Versions are compared by their numbers, and a field that an artifact has not never holds.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import parse_bytes, parse_seconds
from sdbuild.reports.lineage import component, stage
from sdbuild.store import Record

_TERM = re.compile(r"([\w./:-]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.+)")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\+00:00)?)?)?)?)?)?")
_A_DATE = "2000-01-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    field: str
    how: str
    value: str


def find(records: Iterable[Record], words: Sequence[str]) -> list[Record]:
    """Returns the records for which all terms hold, the oldest first.

    Raises:
        RecipeError: a word is no term, no record has its field, or its value does not fit that.
    """
    records = sorted(records, key=lambda record: (record.made_at, record.step))
    fields = [(record, _fields(record)) for record in records]
    terms = [_term(part) for word in words for part in word.split()]
    known = {name for _, found in fields for name in found}
    for term in terms:
        if known and term.field not in known:
            raise RecipeError(
                f"{term.field}: no artifact has such a field{did_you_mean(term.field, known)}",
                hint="fields are step, stage, component, key, host, made, seconds, memory, size, "
                     "version, params.…, tool.…, input.…, source.… and facts.…",
            )
    return [r for r, found in fields if all(_holds(term, found) for term in terms)]


def _term(word: str) -> Term:
    match = _TERM.fullmatch(word)
    if match is None:
        raise RecipeError(
            f"{word!r}: expected a field, an operator (= != < <= > >=) and a value",
            hint="such as params.nbits=4, 'tool.coremltools<9', 'size>1G'; "
                 "quote < and > for the shell",
        )
    return Term(*match.groups())


def _fields(record: Record) -> dict[str, Any]:
    """Everything that can be asked of a record, by name."""
    found: dict[str, Any] = {
        "step": record.step, "stage": stage(record), "component": component(record),
        "key": record.key, "host": record.host, "made": record.made_at,
        "seconds": record.seconds, "memory": record.peak_bytes, "size": record.size_bytes,
        "version": record.ingredients.get("version"),
    }
    for part, name in (("params", "params"), ("tools", "tool"), ("inputs", "input"),
                       ("source", "source")):
        _add(found, name, record.ingredients.get(part, {}))
    _add(found, "facts", record.facts)
    return found


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _add(found, f"{name}.{key}", inner)
    elif not isinstance(value, list):
        found[name] = value


def _holds(term: Term, found: Mapping[str, Any]) -> bool:
    if term.field not in found:
        return False
    own, compare = found[term.field], _COMPARE[term.how]
    if term.field in ("memory", "size"):
        return compare(own, parse_bytes(term.value, term.field))
    if term.field == "seconds":
        return compare(own, parse_seconds(term.value, term.field))
    if term.field == "made":
        if not _is_date(term.value):
            raise RecipeError(f"made is {term.value!r}, expected a date such as 2026-01-31, or "
                              "the beginning of one")
        return compare(own[:len(term.value)], term.value)
    if term.how in ("=", "==", "!="):
        # A key is printed as its first digits, and found by them.
        value = f"{term.value}*" if term.field == "key" else term.value
        return _is_same(own, value) == (term.how != "!=")
    if own is None or isinstance(own, bool):
        return False
    if isinstance(own, int | float):
        number = _number(term.value)
        if number is None:
            raise RecipeError(f"{term.field} is a number, compared with {term.value!r}")
        return compare(own, number)
    if term.field.startswith("tool."):
        return compare(_version(own), _version(term.value))
    raise RecipeError(f"{term.field} is text ({_text(own)!r}): only = and != can compare it")


def _is_date(text: str) -> bool:
    """Whether it is a date and time, or the beginning of one."""
    if not _DATE.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text + _A_DATE[len(text):])
    except ValueError:
        return False
    return True


def _is_same(own: Any, value: str) -> bool:
    number = _number(value)
    return fnmatch.fnmatchcase(_text(own), value) or (number is not None and number == own)


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _version(text: str) -> tuple[int, ...]:
    """Returns `2.13.0+cpu` as (2, 13): zeros at the end mean nothing."""
    numbers = [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
