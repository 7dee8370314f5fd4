"""Byte pair encoding: a word's characters joined to tokens, by ranked pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

END_OF_WORD = "</w>"
"""The end of the token that ends a word, in CLIP's vocabulary."""

Pair = tuple[str, str]


def encoded(tokens: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Returns the tokens that remain when no pair can be joined: the one of the lowest rank is
    joined first."""
    found = list(tokens)
    while known := [pair for pair in pairwise(found) if pair in ranks]:
        found = _joined(found, min(known, key=ranks.__getitem__))
    return found


def _joined(tokens: Sequence[str], pair: Pair) -> list[str]:
    found: list[str] = []
    for token in tokens:
        if found and (found[-1], token) == pair:
            found[-1] = "".join(pair)
        else:
            found.append(token)
    return found
