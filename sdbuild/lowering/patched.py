"""Replaces functions of coremltools for a while: known functions, in known versions, or none."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import coremltools

from sdbuild.base.errors import StepError

MAJOR_VERSION = "9"
"""Of coremltools, whose functions are replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A function of a class or module, the names of its parameters, and what stands in for it.

    `replacement` takes the original, as the owner gives it, and returns the attribute to set.
    """

    owner: Any
    name: str
    parameters: tuple[str, ...]
    replacement: Callable[[Callable[..., Any]], Any]

    @property
    def function(self) -> str:
        """The function's full name."""
        module = getattr(self.owner, "__module__", "")
        return f"{module}.{self.owner.__name__}.{self.name}".lstrip(".")


@contextlib.contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Replaces functions, and puts the originals back however the context ends.

    Raises:
        StepError: coremltools has another major version, or a function is missing or takes other
            parameters; nothing is replaced then.
    """
    for patch in patches:
        _expect_known(patch)
    with contextlib.ExitStack() as originals:
        for patch in patches:
            originals.callback(setattr, patch.owner, patch.name, vars(patch.owner)[patch.name])
            setattr(patch.owner, patch.name, patch.replacement(getattr(patch.owner, patch.name)))
        yield


def _expect_known(patch: Patch) -> None:
    version = coremltools.__version__
    if version.partition(".")[0] != MAJOR_VERSION:
        raise _unknown(f"found coremltools {version}, expected {MAJOR_VERSION}.*")
    if patch.name not in vars(patch.owner):
        raise _unknown(f"coremltools {version} has no {patch.function}")
    found = tuple(inspect.signature(getattr(patch.owner, patch.name)).parameters)
    if found != patch.parameters:
        raise _unknown(
            f"coremltools {version}: {patch.function} takes ({', '.join(found)}), "
            f"expected ({', '.join(patch.parameters)})"
        )


def _unknown(message: str) -> StepError:
    return StepError(
        message,
        hint=f"install coremltools {MAJOR_VERSION}, as constraints.txt has it; or lower=direct, "
             "which converts without replacing any of its functions",
    )
