"""Suggestions for words that are not known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "…"?`, or nothing if no known word is near.

    Of words that are equally near, it is the one whose number is nearest: iOS16 for iOS15.
    """
    words = list(known)
    near = difflib.get_close_matches(word, words, n=len(words) or 1, cutoff=0.6)
    if not near:
        return ""
    best = min(near, key=lambda other: (-_likeness(word, other), _distance(word, other)))
    return f'; did you mean "{best}"?'


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, word).ratio()


def _distance(word: str, other: str) -> int:
    numbers = [re.search(r"[0-9]{1,9}\Z", text) for text in (word, other)]
    first, second = (int(found[0]) if found else 0 for found in numbers)
    return abs(first - second)
