"""Sizes, times and counts, parsed and printed: `20G`, `30d`, `13.1 MB`, `25 steps`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdbuild.base.errors import RecipeError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BYTES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800,
            "y": 31_557_600}


def size(count: float) -> str:
    """Bytes in the unit that fits: `13.1 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def clock(seconds: float) -> str:
    """Returns a time as a clock shows it: `0:38`, `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(count: int, noun: str) -> str:
    """So many of something: `1 step`, `25 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def several(texts: Sequence[str], most: int = 3) -> str:
    """Returns some of the texts, and how many more there are."""
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def parse_bytes(text: str, what: str) -> int:
    """Bytes, from `500M`, `20G`, `20GB` or `2GiB`: units are of a thousand, as everywhere here.

    Raises:
        RecipeError: it is no size.
    """
    number, unit = _parts(text)
    unit = unit.removesuffix("b") if len(unit) > 1 else unit
    if number is None or unit not in _BYTES:
        raise RecipeError(f"{what} is {text!r}, expected a size such as 500M or 20G")
    return round(number * _BYTES[unit])


def parse_seconds(text: str, what: str) -> float:
    """Seconds, from `90s`, `5min`, `12h`, `30d` or `4w`.

    Raises:
        RecipeError: it is no time.
    """
    number, unit = _parts(text)
    if number is None or unit not in _SECONDS:
        raise RecipeError(f"{what} is {text!r}, expected a time such as 90s, 12h or 30d")
    return number * _SECONDS[unit]


def _parts(text: str) -> tuple[float | None, str]:
    match = _NUMBER.fullmatch(text.strip())
    return (float(match[1]), match[2].lower()) if match else (None, "")
