"""Virtual files: outputs whose digest and size are recorded, but whose bytes are not stored.

A step that reads one computes the bytes from the inputs of the step that made it, which may be
virtual too. Keys and downstream artifacts are those of a stored file
(`docs/decisions/0047-virtual-weight-files.md`).
"""

from __future__ import annotations

from dataclasses import replace

from sdbuild.checkpoints import is_hub
from sdbuild.engine.plan import Plan
from sdbuild.engine.step import Step
from sdbuild.store import Record


def may_be_virtual(step: Step, path: str) -> bool:
    """Whether the file at `path` of a step's artifact can be computed from what the step reads."""
    return reads_local(step) and step.stage.may_be_virtual(step.params, path)


def without_virtual(step: Step, record: Record) -> Record:
    """Returns the record of a step without the files that may be virtual."""
    return replace(record, tree=tuple(
        entry for entry in record.tree if not may_be_virtual(step, entry.path)))


def readers_allow_virtual(step: Step, plan: Plan) -> bool:
    """Whether a step of the bundle reads files of `step` that may be virtual, and all that do can
    compute them."""
    readers = [name in reader.stage.reads_virtual for reader in plan.needed_by("bundle")
               for name, source in reader.inputs.items() if source.step == step.name
               and (not source.path or may_be_virtual(step, source.path))]
    return reads_local(step) and bool(readers) and all(readers)


def reads_local(step: Step) -> bool:
    """Whether what a step reads from outside, if anything, is on this machine, and stays: where it
    is locked it may go, for the lock says what it was."""
    return step.source is None or not (step.locked or any(map(is_hub, step.source.places)))
