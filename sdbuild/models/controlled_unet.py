"""The U-Net of Stable Diffusion 1.x and 2.x that ControlNets add to."""

from __future__ import annotations

import torch
from torch import nn

from sdbuild.families import Component
from sdbuild.models import residuals as of_network
from sdbuild.models import unet
from sdbuild.models.network import Architecture

dims = unet.dims
residuals = of_network.shapes
samples = of_network.with_additions(unet.samples)


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
