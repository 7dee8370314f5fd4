"""The places of a network's parameters among the constants of its package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdbuild.lowering.lowered import BINDINGS, Binding, read_bindings
from sdbuild.mil.compress.compress import ARGUMENT_OPSET, Selection, opset_number, tasks
from sdbuild.mil.compress.packed_weights import Task
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.program import Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The parameter that each place of a package's weight file holds, by the place's offset."""

    bindings: Mapping[int, Binding]

    @classmethod
    def of(cls, lowered: Path) -> Places:
        """Returns the places in packages of the lowered program in a folder."""
        _, bindings = read_bindings(lowered / BINDINGS)
        return cls(bindings={b.offset: b for b in bindings if b.offset is not None})

    def binding(self, task: Task) -> Binding | None:
        """Returns the binding of a weight; None if it is no parameter of the network, as the mask
        of a text encoder is none."""
        data = task.value.data
        found = self.bindings.get(data.offset) if isinstance(data, Blob) else None
        return found if found and found.parameter is not None else None


def weights_of(model: Model, skip_types: Sequence[str]) -> tuple[int, list[Task]]:
    """Returns the opset of a package, by number, and its weights that are palettized."""
    opsets: set[int] = set()
    found: dict[tuple[object, ...], Task] = {}
    for function in model.program.functions.values():
        for opset, block in function.blocks.items():
            opsets.add(opset_number(opset))
            chosen = tasks(block, Selection(nbits=1, skip_types=skip_types),
                           as_argument=opset_number(opset) >= ARGUMENT_OPSET)
            found |= {task.key: task for task in chosen.values()}
    return min(opsets), list(found.values())
