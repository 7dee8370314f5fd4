"""Rules for the values of a config, which may come from anybody: what each may be, in words too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 60
_BLOCKS = 8


def shown(value: Any) -> str:
    """Returns a value as JSON has it, cut to a line."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Allowed values of a field: `expected` in words, and what a network with another value is."""

    allows: Callable[[Any], bool]
    expected: str
    otherwise: str | Mapping[Any, str] = ""

    def meaning(self, value: Any) -> str:
        """Returns what a value that is not allowed means; empty if unknown."""
        if isinstance(self.otherwise, str):
            return self.otherwise
        return self.otherwise.get(value, "") if isinstance(value, int | str) else ""


def only(*values: Any, otherwise: str | Mapping[Any, str] = "") -> Rule:
    """Returns one of these values, of the same type: 1 is not true."""
    def allows(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in values)
    return Rule(allows=allows, expected=" or ".join(map(shown, values)), otherwise=otherwise)


def integer(low: int, high: int) -> Rule:
    """Returns a whole number, and not true or false."""
    return Rule(allows=lambda value: type(value) is int and low <= value <= high,
                 expected=f"an integer from {low} to {high}")


def number(low: float, high: float) -> Rule:
    """Returns a number, and not NaN, which no comparison holds for."""
    def allows(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high
    return Rule(allows=allows, expected=f"a number from {low:g} to {high:g}")


def list_of(rule: Rule, low: int = 1, high: int = _BLOCKS) -> Rule:
    """Returns a list of what the rule allows, one for each block."""
    def allows(value: Any) -> bool:
        return isinstance(value, list) and low <= len(value) <= high and all(
            rule.allows(one) for one in value)
    count = f"{low} to {high}" if low < high else str(low)
    return Rule(allows=allows, expected=f"a list of {count}, each {rule.expected}",
                 otherwise=rule.otherwise)


def either(first: Rule, second: Rule) -> Rule:
    """Returns the rule that allows what one of two allows."""
    return Rule(allows=lambda value: first.allows(value) or second.allows(value),
                 expected=f"{first.expected}, or {second.expected}")


def per_block(rule: Rule) -> Rule:
    """Returns one value, or a list of one for each block."""
    return either(rule, list_of(rule))
