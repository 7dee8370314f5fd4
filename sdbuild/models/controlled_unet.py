"""The U-Net of Stable Diffusion 1.x and 2.x that ControlNets add to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sdbuild.families import Component, Dims
from sdbuild.models import residuals as of_network
from sdbuild.models import unet
from sdbuild.models.network import Architecture

dims = unet.dims
residuals = of_network.shapes


class ControlledUNet(unet.UNet):
    """diffusers' U-Net, with something to add to each of its residuals."""

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        *additional: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the predicted noise.

        Shapes:
            sample: (B, I, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S); additional:
            one for each of `residuals.shapes`; returns (B, C, h, w).
        """
        return self.noise(
            sample, timestep, encoder_hidden_states,
            down_block_additional_residuals=additional[:-1],
            mid_block_additional_residual=additional[-1])


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    return unet.built(ControlledUNet, architecture)


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Yields those of U-Nets, each with normal noise to add to the residuals.

    Shapes:
        each: sample (B, I, h, w), timestep (B,), encoder_hidden_states (B, D, 1, S), and one for
        each of `residuals.shapes`.
    """
    for inputs in unet.samples(component, config, dims, rng):
        yield *inputs, *(torch.randn(shape, generator=rng) for shape in residuals(config, dims))
