"""Lowers a graph once for all checkpoints of its architecture, with stand-ins for weights.

No constant of a graph is taken for a stand-in, by construction: the stand-ins avoid the numbers
that the graph names, and where a constant that the lowering computed holds one of theirs all the
same, or could, the graph is lowered again with stand-ins that avoid all of its constants. A true
constant is the same again and clashes no more; what was computed from a parameter changes with it,
and is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdbuild.base.errors import StepError
from sdbuild.families import Component
from sdbuild.families.nouns import Precision
from sdbuild.lowering import coreml
from sdbuild.lowering.lowered import Lowered
from sdbuild.lowering.place import HINT, Constant, identified, placed
from sdbuild.lowering.recording import recording
from sdbuild.lowering.standins import SEED, StandIns, on_grid
from sdbuild.mil.ir.proto import Message

_FEWEST_ROWS = 3
"""A constant that equals as many numbers of a stand-in, in order, is one: of 9,216 each, and the
first of them negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A graph lowered with some stand-ins, and what each constant is."""

    standins: StandIns
    spec: Message
    constants: Sequence[Constant]

    @property
    def others(self) -> Sequence[Constant]:
        """The constants that are no stand-ins."""
        return [constant for constant in self.constants if constant.parameter is None]


def lower(
    program: torch.export.ExportedProgram, component: Component, target: str, folder: Path,
    seed: int = SEED, precision: Precision = "fp16",
) -> Lowered:
    """Returns the lowered program of a graph; writes its constants into `folder`.

    Args:
        seed: of the stand-ins; the result does not depend on it.
        precision: of what the program computes.

    Raises:
        StepError: coremltools cannot lower the graph, or a parameter is not in the result exactly
            once as it is.
    """
    def attempt(avoid: Set[float], seed: int) -> _Attempt:
        shapes = {name: tuple(tensor.shape) for name, tensor in program.state_dict.items()}
        standins = StandIns(shapes, avoid, seed)
        with recording() as written:
            spec, _ = coreml.lower(program, standins.tensors(), component, target, precision)
        return _Attempt(standins=standins, spec=spec,
                        constants=identified(standins, written, spec))

    avoid = numbers_of(program)
    found = attempt(avoid, seed)
    if not _is_certain(program, found):
        before = found
        found = attempt(avoid.union(*(on_grid(c.array) for c in before.others)), seed + 1)
        _expect_same(before.others, found)
    return placed(found.standins, found.constants, found.spec, folder)


def numbers_of(program: torch.export.ExportedProgram) -> frozenset[float]:
    """Returns the numbers that a graph names, in fp16 as in a program, as far as stand-ins could
    have them.
    """
    arguments = (each for node in program.graph.nodes for each in (node.args, node.kwargs))
    tables = [t.detach().cpu().numpy() for t in program.constants.values()
              if isinstance(t, torch.Tensor) and not t.is_meta]
    with np.errstate(over="ignore"):
        found = np.array([*_floats(tuple(arguments))]).astype(np.float16)
        return on_grid(found).union(*(on_grid(t.astype(np.float16)) for t in tables))


def _floats(argument: Any) -> Iterator[float]:
    if isinstance(argument, float):
        yield argument
    elif isinstance(argument, Mapping):
        yield from _floats(tuple(argument.values()))
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _floats(each)


def _is_certain(program: torch.export.ExportedProgram, found: _Attempt) -> bool:
    """Whether one lowering shows which constants are stand-ins; else a second, with other numbers,
    shows which depend on them.

    It does not where a constant holds a stand-in's numbers and is none; where a parameter is used
    twice, once as it is and once, perhaps, in a constant that was computed from it; and where a
    parameter is so short that a computed constant may equal its stand-in.
    """
    parameters = program.graph_signature.inputs_to_parameters
    is_shared = any(n.name in parameters and len(n.users) > 1 for n in program.graph.nodes)
    is_short = any(len(rows) < _FEWEST_ROWS for rows in found.standins.rows.values())
    return not (is_shared or is_short or any(c.clashing for c in found.others))


def _expect_same(before: Sequence[Constant], now: _Attempt) -> None:
    """Makes sure that constants do not depend on the stand-ins."""
    changed = [
        old.name for old, new in zip(before, now.others, strict=False)
        if not np.array_equal(old.array, new.array, equal_nan=old.array.dtype.kind == "f")
    ]
    if changed and not any(constant.clashing for constant in now.others):
        raise StepError(
            f"the lowering computed constants from parameters, so that no other checkpoint could "
            f"be bound to them: {', '.join(changed[:8])}",
            hint=HINT,
        )
