"""Virtual files: outputs whose digest and size are recorded, but whose bytes are not stored.

A step that reads one computes the bytes from the inputs of the step that made it. Keys and
downstream artifacts are those of a stored file (`docs/decisions/0047-virtual-weight-files.md`).
"""

from __future__ import annotations

from dataclasses import replace

from sdbuild.engine.plan import Plan
from sdbuild.engine.step import Step
from sdbuild.store import Record


def without_virtual(step: Step, record: Record) -> Record:
    """Returns the record of a step without the files that may be virtual."""
    return replace(record, tree=tuple(
        entry for entry in record.tree
        if not step.stage.may_be_virtual(step.params, entry.path)))


def readers_allow_virtual(step: Step, plan: Plan) -> bool:
    """Whether at least one step reads the output of `step`, and all of them read virtual files."""
    readers = [name in reader.stage.reads_virtual for reader in plan.steps.values()
               for name, source in reader.inputs.items() if source.step == step.name]
    return bool(readers) and all(readers)
