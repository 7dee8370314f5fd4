"""How numbers and records are told to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdbuild.store import Record, Store


def size(count: float) -> str:
    """Bytes in the unit that fits: `13.1 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def counted(count: int, noun: str) -> str:
    """So many of something: `1 step`, `25 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def several(texts: Sequence[str], most: int = 3) -> str:
    """Some of the texts, and how many more there are."""
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def notes(record: Record) -> list[str]:
    """What else is worth a line of an artifact: where it came from, what went wrong with it."""
    facts = record.facts
    lines = [f"from {facts['place']}"] if "place" in facts else []
    return lines + [f"{name} was damaged in the Hub's cache, and is fetched again"
                    for name in facts.get("fetched_again", ())]


def made(record: Record) -> str:
    """What an artifact is and what it cost, in one line."""
    return (
        f"{record.seconds:6.1f} s  {size(record.peak_bytes):>8} memory"
        f"  {size(record.size_bytes):>8}  {record.key[:8]}"
    )


def as_json(record: Record, store: Store) -> dict[str, Any]:
    """What an artifact is, for commands that print JSON."""
    return {
        "key": record.key, "step": record.step, "made_at": record.made_at, "host": record.host,
        "seconds": record.seconds, "peak_bytes": record.peak_bytes,
        "size_bytes": record.size_bytes, "digest": record.digest(),
        "has_content": store.has_content(record), "ingredients": dict(record.ingredients),
    }
