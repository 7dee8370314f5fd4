"""Bit recipes beside the checkpoints whose weights they name, before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import several
from sdbuild.checkpoints import normalize
from sdbuild.checkpoints.files import Files
from sdbuild.engine.plan import Plan
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.step import Step
from sdbuild.engine.virtual import reads_local
from sdbuild.recipe.bits import REST


def expect_named(steps: Iterable[Step], plan: Plan, checkpoints: Checkpoints) -> None:
    """Makes sure that bit recipes with bits for all other weights name parameters that there are,
    where the checkpoint is on this machine; elsewhere `allocate` finds out.

    Raises:
        RecipeError: one names a weight that no checkpoint has.
    """
    for step in steps:
        bits = step.params.get("budget", {}).get("bits", {}) if step.kind == "allocate" else {}
        names = _parameters(step, plan, checkpoints) if REST in bits else set()
        foreign = [name for name in bits if name not in names and name != REST]
        if names and foreign:
            said = several([f"{name}{did_you_mean(name, names)}" for name in foreign])
            raise RecipeError(f"bits: {step.component} has no weight {said}",
                              hint="correct the bit recipe; if it is of another architecture, "
                                   "allocate bits for this one, with quant=4.0")


def _parameters(step: Step, plan: Plan, checkpoints: Checkpoints) -> set[str]:
    """Returns the names of the parameters of the network that a step allocates bits for; none if
    its checkpoint cannot be read here."""
    read = plan.steps.get(f"download:{step.component}")
    if read is None or read.source is None or not reads_local(read):
        return set()
    [component] = [c for c in plan.recipe.components if c.label == step.component]
    with contextlib.suppress(SourceError, OSError):
        found = checkpoints.resolve(read.source)
        assert not isinstance(found, Files)
        tensors = normalize.tensors(read.reads[0], found.tensors(read.reads[0]).values())
        return {component.parameter(tensor.name) for tensor in tensors}
    return set()
