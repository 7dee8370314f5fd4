"""Explains why two artifacts of a step differ: the ingredients that changed.

    params.nbits 6 → 4 (command line)
    tool coremltools 9.0 → 9.1
    source unet/diffusion_pytorch_model.safetensors changed
    input checkpoint.unet: 3 tensors changed, first conv_in.weight
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from sdbuild.base.digest import Digest
from sdbuild.reports.lineage import Lineage, component
from sdbuild.store import Record

_ORDER = ("params", "schema", "version", "tools", "reads", "source", "inputs")
"""Ingredients in the order of listing: what a person changed comes before its consequences."""

_MOST = 5
"""The lines on one kind of ingredient: a bit recipe has a parameter for each weight."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the ingredients that differ: the part and the name of each, first causes first."""
    found = []
    for part in sorted({*before, *after} - {"kind"}, key=_rank):
        was, now = _flat(before.get(part)), _flat(after.get(part))
        found += [(part, name) for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return found


def causes(
    before: Record, after: Mapping[str, Any], lineage: Lineage, plain: Mapping[str, Any] | None
) -> list[str]:
    """Returns what changed between an artifact and the ingredients of another one of its step.

    Args:
        plain: the parameters of the step without what the command line asks for; None where
            nobody asked for anything.
    """
    found = differences(before.ingredients, after)
    if len(found) > 1:
        found = [pair for pair in found if pair != ("inputs", "provenance")]
    return [
        _cause(part, name, _flat(before.ingredients.get(part)).get(name),
               _flat(after.get(part)).get(name), before, lineage, plain)
        for part, name in found
    ]


def few(found: Iterable[str]) -> Iterator[str]:
    """Yields the first few causes of each kind, and how many more there are."""
    for _, same in groupby(found, key=lambda cause: re.split(r"\W", cause)[0]):
        causes = list(same)
        shown = causes if len(causes) <= _MOST else causes[:_MOST - 1]
        yield from shown
        if left := len(causes) - len(shown):
            yield f"{left} more"


def _cause(
    part: str, name: str, was: Any, now: Any, record: Record, lineage: Lineage,
    plain: Mapping[str, Any] | None,
) -> str:
    if part == "params":
        asked = "" if plain is None else " (command line)" if _flat(plain).get(name) != now else ""
        return f"params.{name} {_short(was)} → {_short(now)}{asked}"
    if part == "tools":
        return f"tool {name} {_short(was)} → {_short(now)}"
    if part == "source":
        return f"source {name} {_how(was, now)}"
    if part == "inputs":
        title = f"input {name}.{component(record)}" if component(record) != "all" else \
                f"input {name}"
        return f"{title}{_input_change(was, now, lineage)}"
    if part == "version":
        return f"the step itself changed, version {_short(was)} → {_short(now)}"
    return f"{part} {_short(was)} → {_short(now)}"


def _input_change(was: Digest | None, now: Digest | None, lineage: Lineage) -> str:
    """Returns the cause of a changed input, from the records that made it before and now."""
    olds = {r.step: r for r in lineage.makers(was)}
    for new in reversed(lineage.makers(now)):
        old = olds.get(new.step)
        if old is None:
            continue
        tensors = _tensors(old.facts.get("tensors"), new.facts.get("tensors"))
        if tensors:
            return f": {tensors}"
        further = causes(old, new.ingredients, lineage, None)
        if further:
            return f": {new.step}, {further[0]}"
    return f" {_how(was, now)}"


def _tensors(was: object, now: object) -> str:
    """`3 tensors changed, first conv_in.weight`, where both tell the digests of tensors."""
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return ""
    names = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    if not names:
        return ""
    count = f"{len(names)} tensors" if len(names) > 1 else "1 tensor"
    return f"{count} changed, first {names[0]}"


def _flat(value: Any) -> dict[str, Any]:
    """Returns a table of tables as one, with dots in the names; of anything else its value by no
    name."""
    return dict(_leaves("", value))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif value is not None or name:
        yield name, value


def _rank(part: str) -> int:
    return _ORDER.index(part) if part in _ORDER else len(_ORDER)


def _how(was: object, now: object) -> str:
    return "is new" if was is None else "is gone" if now is None else "changed"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "…"
