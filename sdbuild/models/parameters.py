"""Names of the parameters of a component's network in its graph. Imports nothing heavy."""

from __future__ import annotations

from sdbuild.families import Component

NET = "net."
"""What they begin with: each network is traced in a wrapper, as its field `net`."""


def parameter_of(component: Component, tensor: str) -> str:
    """Returns the name of the graph's parameter that a checkpoint's tensor is for."""
    return NET + component.parameter(tensor)
