"""The U-Net of Stable Diffusion XL that ControlNets add to."""

from __future__ import annotations

import torch
from torch import nn

from sdbuild.families import Component
from sdbuild.models import residuals as of_network
from sdbuild.models import unet, unet_xl
from sdbuild.models.network import Architecture

dims = unet_xl.dims
residuals = of_network.shapes
samples = of_network.with_additions(unet_xl.samples)


class ControlledUNetXL(unet.UNet):
    """diffusers' U-Net of XL, with something to add to each of its residuals."""

    def forward(  # type: ignore[override]
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        time_ids: torch.Tensor, text_embeds: torch.Tensor, *additional: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the predicted noise.

        Shapes:
            as `unet_xl.UNetXL`; additional: one for each of `residuals.shapes`.
        """
        return self.noise(
            sample, timestep, encoder_hidden_states,
            added_cond_kwargs={"time_ids": time_ids, "text_embeds": text_embeds},
            down_block_additional_residuals=additional[:-1],
            mid_block_additional_residual=additional[-1])


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    return unet.built(ControlledUNetXL, architecture)
