"""Names of tensors without what wraps a model while it is trained.

A state saved from a compiled or distributed model has the wrapper's name in each tensor's:
`_orig_mod` by torch.compile, `module` by DataParallel and its kin. A state of a whole training
module has `model` or `state_dict` before all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import SourceError

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

_WITHIN = ("_orig_mod", "module")
_BEFORE = ("model", "state_dict")
_ROOTS = ("model.diffusion_model.", "diffusion_model.", "first_stage_model.", "cond_stage_model.",
          "conditioner.", "control_model.", "model_ema.")
"""Prefixes of the original Stable Diffusion code."""


def unwrapped(
    path: Path, found: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors by their names without wrappers, and the wrappers that were there.

    Raises:
        SourceError: two tensors have the same name then.
    """
    made: dict[str, Tensor] = {}
    wrappers: set[str] = set()
    for name, tensor in found.items():
        bare, removed = _bare(name)
        wrappers |= removed
        if bare in made:
            raise SourceError(
                f"{path}: {made[bare].name} and {name} are two tensors for {bare}",
                hint="it holds two states of a model, which a training run saved: keep one",
            )
        made[bare] = tensor
    return made, tuple(sorted(wrappers))


def _bare(name: str) -> tuple[str, set[str]]:
    parts = name.split(".")
    removed = set(parts) & set(_WITHIN)
    bare = ".".join(part for part in parts if part not in _WITHIN)
    while True:
        first, _, rest = bare.partition(".")
        if first not in _BEFORE or not rest.startswith(_ROOTS) or bare.startswith(_ROOTS):
            return bare, removed
        bare, removed = rest, removed | {first}
