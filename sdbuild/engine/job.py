"""The job of a step: its inputs laid out in its workspace, and where everything is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.digest import Digest
from sdbuild.engine.stage import From
from sdbuild.engine.virtual import without_virtual
from sdbuild.store import Record

if TYPE_CHECKING:
    from sdbuild.engine.build import Builder, State
    from sdbuild.engine.step import Step


class OtherInput(Exception):
    """An input that had to be made again is not what its record said: the keys after it change."""


def job_of(
    builder: Builder, state: State, states: Mapping[str, State], work: Path
) -> dict[str, Any]:
    """Lays out a step's inputs in its workspace; returns its job, as JSON.

    Raises:
        OtherInput: the step is another one, now that its inputs were made again.
    """
    job = _job(builder, state, states, work / "in")
    if state.step.stage.needs_provenance:
        path = work / "in" / "provenance"
        path.write_text(json.dumps(builder.provenance(state.step, states)), "utf-8")
        job["inputs"]["provenance"] = str(path)
    (work / "out").mkdir()
    return job | {"output": str(work / "out")}


def _job(
    builder: Builder, state: State, states: Mapping[str, State], place: Path
) -> dict[str, Any]:
    """Lays out a step's inputs at `place`, and those of each step that made an input with virtual
    files; returns its job, as JSON."""
    inputs, virtual = {}, {}
    for name, source in state.step.inputs.items():
        maker, expected = states[source.step], state.ingredients["inputs"][name]
        is_virtual = builder.reads_virtual(state.step, name, maker.record)
        inputs[name] = _laid_out(builder, source, place / name, expected,
                                 is_whole=not is_virtual)
        if is_virtual:
            virtual[name] = _job(builder, maker, states, place / f"{name}.of")
    return {
        "params": dict(state.step.params), "inputs": inputs, "output": str(place),
        "virtual": virtual, **builder.checkpoints.job(state.step),
    }


def sources_read(
    builder: Builder, state: State, states: Mapping[str, State]
) -> Iterator[tuple[Step, Mapping[str, str]]]:
    """Yields a step and each that made virtual files which it reads, because it reads their sources
    too; with each the digests of its source's files."""
    yield state.step, state.ingredients["source"]
    for name, source in state.step.inputs.items():
        if builder.reads_virtual(state.step, name, states[source.step].record):
            yield from sources_read(builder, states[source.step], states)


def _laid_out(
    builder: Builder, source: From, place: Path, expected: Digest, *, is_whole: bool = True
) -> str:
    """Lays an input out, which must be the one that the step's key is of."""
    def use(record: Record) -> Path:
        if record.digest(source.path) != expected:
            raise OtherInput
        part = record if is_whole else without_virtual(builder.plan.steps[source.step], record)
        return builder.store.checkout(part, place, source.path)

    return str(builder.deliver(source.step, use, source.path, is_whole=is_whole))
