"""Short names for bundles side by side: what tells each from the others."""

from __future__ import annotations

from collections.abc import Sequence


def labels(names: Sequence[str]) -> list[str]:
    """Returns names without the words, between hyphens, that all of them have; whole ones where
    that leaves nothing, or two alike."""
    words = [name.split("-") for name in names]
    common = set(words[0]).intersection(*words[1:]) if len(words) > 1 else set()
    short = ["-".join(word for word in each if word not in common) for each in words]
    return short if all(short) and len(set(short)) == len(short) else list(names)
