"""Records as lines for a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from sdbuild.base.units import counted, size
from sdbuild.store import Record, Store

_NAMED = 3
"""Tensors that a note names before it ends with an ellipsis."""


def note_lines(record: Record) -> list[str]:
    """What else is worth a line of an artifact: where it came from, what went wrong with it."""
    facts = record.facts
    lines = [f"from {facts['place']}"] if "place" in facts else []
    lines += [f"read: {note}" for note in facts.get("read", ())]
    ignored = facts.get("ignored", ())
    if ignored:
        names = ", ".join(ignored[:_NAMED]) + (", …" if len(ignored) > _NAMED else "")
        lines.append(f"ignored {counted(len(ignored), 'tensor')} of embeddings in a LoRA's file, "
                     f"which the prompt's words would need: {names}")
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
