"""Numbers with units as people type them: `20G`, `1.5GB`, `30d`, `90s`."""

from __future__ import annotations

import re

from sdbuild.errors import RecipeError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BYTES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800,
            "y": 31_557_600}


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
