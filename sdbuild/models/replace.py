"""Modules of a network replaced by others with the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def replace_each(
    network: nn.Module, kind: type[nn.Module], new: Callable[[Any], nn.Module]
) -> None:
    """Puts `new(module)` in the place of every module of a kind; it may be the same one."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, new(child))
