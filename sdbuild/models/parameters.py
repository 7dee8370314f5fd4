"""Names of the parameters of a component's network in its graph. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sdbuild.families import Component

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

NET = "net."
"""The prefix of all parameters: each network is traced in a wrapper, as its field `net`."""


def parameter_of(component: Component, tensor: str) -> str:
    """Returns the name of the graph's parameter that a checkpoint's tensor is for."""
    return NET + component.parameter(tensor)


def by_parameter(
    component: Component, tensors: Iterable[Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Returns a checkpoint's tensors by the graph's parameters that they are for, those that the
    component derives in the shapes of these.

    Raises:
        SourceError: one cannot be derived.
    """
    from sdbuild.safetensors.derived import derived

    found = {}
    for tensor in tensors:
        name = parameter_of(component, tensor.name)
        by = component.derived.get(tensor.name)
        found[name] = derived(tensor, by, shapes[name]) if by and name in shapes else tensor
    return found
