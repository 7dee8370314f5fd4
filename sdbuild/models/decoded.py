"""Networks whose large weights stay memory-mapped as they are stored (fp16, bf16), and are decoded
to fp32 each time that a layer uses them.

Decoding is exact, so outputs and gradients equal those of an fp32 network. It takes a fraction of
the memory, because mapped pages can be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

LEAST_ELEMENTS = 1 << 18
"""The size from which a weight is decoded on use. All smaller ones together take little memory."""

_STANDIN = ".original"
_OWNERS = ".parametrizations."


def load(network: nn.Module, stored: Mapping[str, torch.Tensor]) -> None:
    """Loads stored tensors into a network on the meta device: small ones as fp32, large ones to be
    decoded on use."""
    network.load_state_dict(
        {name: tensor if tensor.numel() >= LEAST_ELEMENTS else tensor.float()
         for name, tensor in stored.items()}, strict=True, assign=True)
    for name, parameter in list(network.named_parameters()):
        if parameter.dtype != torch.float32:
            owner, _, own = name.rpartition(".")
            module = network.get_submodule(owner)
            standin = torch.zeros(()).expand(parameter.shape)  # takes the gradient, and no memory
            setattr(module, own, nn.Parameter(standin, requires_grad=False))
            parametrize.register_parametrization(
                module, own, _Decoded(parameter.detach()), unsafe=True)


def named_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters of a network under the names that they have without this module.

    A parameter that is decoded on use has the shape and the gradient of its fp32 weight, and no
    values of its own.
    """
    for name, parameter in network.named_parameters():
        yield name.removesuffix(_STANDIN).replace(_OWNERS, ".") \
            if _OWNERS in name else name, parameter


class _Decoded(nn.Module):
    """A parametrization that decodes a stored weight to fp32."""

    def __init__(self, stored: torch.Tensor) -> None:
        super().__init__()
        self._stored = stored

    def forward(self, standin: torch.Tensor) -> torch.Tensor:
        """Returns the weight, whose gradient goes to `standin`."""
        found: torch.Tensor = _Decode.apply(standin, self._stored)
        return found


class _Decode(torch.autograd.Function):
    """Decodes `stored`, and passes the gradient to `standin`, the parameter in its place."""

    @staticmethod
    def forward(context: Any, standin: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
        return stored.float()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
