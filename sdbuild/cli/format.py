"""Records as lines for a terminal and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.parsing import shown
from sdbuild.base.units import counted, size
from sdbuild.engine.build import Builder
from sdbuild.store import Record, Store

if TYPE_CHECKING:
    from sdbuild.cli.api import BuildResult

_NAMED = 3
"""Tensors that a note names before it ends with an ellipsis."""


def note_lines(record: Record) -> list[str]:
    """Returns the notes on an artifact: where it came from, what went wrong with it."""
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
    """Returns one line on an artifact and its cost."""
    return (
        f"{record.seconds:6.1f} s  {size(record.peak_bytes):>8} memory"
        f"  {size(record.size_bytes):>8}  {record.key[:8]}"
    )


def finished(bundle: Path, builder: Builder, is_last: bool) -> list[str]:
    """Returns a bundle that was built, and the command that comes next unless one follows
    anyway."""
    record = builder.state("bundle").record
    if record is None:
        return []
    place = relative(bundle)
    draws = "pictures" in builder.plan.steps
    following = f"sdbuild {'generate' if draws else 'contract'} {shlex.quote(place)}"
    return [f"{place}  {size(record.size_bytes)}", *_words(builder),
            *([f"next: {following}"] if is_last else [])]


def _words(builder: Builder) -> Iterator[str]:
    """Yields what is written in prompts for each embedding, and which words no app reads."""
    facts: dict[str, Any] = {}
    for name in ("embed:resources", "download:resources"):
        record = builder.state(name).record if name in builder.plan.steps else None
        facts |= record.facts if record else {}
    for words in facts.get("words", ()):
        yield f"in prompts: {' '.join(words)}"
    if unspoken := ", ".join(map(shown, facts.get("unspoken", ()))):
        yield (f"warning: apps do not read the words that the checkpoint's tokenizer adds, "
               f"{unspoken}: embedding=FILE writes them where they do")


def relative(path: Path) -> str:
    """Returns a path as seen from the current folder, if it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def build_as_json(found: BuildResult, store: Store) -> dict[str, Any]:
    """Returns a build, for commands that print JSON.

    Raises:
        SDBuildError: the build failed.
    """
    if found.error is not None:
        raise found.error
    return {
        "bundle": str(found.bundle), "seconds": round(found.seconds, 3),
        "ran": [as_json(record, store) for record in found.ran.values()],
        "reused": [as_json(record, store) for record in found.reused.values()],
        "warnings": list(found.warnings),
    }


def as_json(record: Record, store: Store) -> dict[str, Any]:
    """Returns an artifact as commands print it as JSON."""
    return {
        "key": record.key, "step": record.step, "made_at": record.made_at, "host": record.host,
        "seconds": record.seconds, "peak_bytes": record.peak_bytes,
        "size_bytes": record.size_bytes, "digest": record.digest(),
        "has_content": store.has_content(record), "ingredients": dict(record.ingredients),
    }
