"""ControlNets of Stable Diffusion XL, which also get numbers about the picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sdbuild.families import Component, Dims
from sdbuild.models import controlnet, unet_xl
from sdbuild.models.conditioned import Conditioned
from sdbuild.models.network import Architecture

residuals = controlnet.residuals


class ControlNetXL(Conditioned):
    """diffusers' ControlNet, conditioned on more than a prompt."""

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        time_ids: torch.Tensor, text_embeds: torch.Tensor, controlnet_cond: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Returns the residuals in the order in which the U-Net makes its own, the mid block's
        last.

        Shapes:
            as `unet_xl.UNetXL`; controlnet_cond: (B, 3, H, W), from 0 to 1; returns one for each of
            `residuals.shapes`.
        """
        down, mid = self.net(
            sample, timestep, self.embeddings(encoder_hidden_states), controlnet_cond,
            added_cond_kwargs={"time_ids": time_ids, "text_embeds": text_embeds},
            return_dict=False)
        return *down, mid


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device.

    Raises:
        SourceError: it gives something that no U-Net of a bundle takes.
    """
    return controlnet.built(ControlNetXL, component, architecture)


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """Returns the numbers of its port shapes.

    Raises:
        SourceError: what the network adds to the timestep has no room for the component's numbers.
    """
    return {
        **controlnet.dims(component, config, batch=batch, width_px=width_px, height_px=height_px),
        "P": unet_xl.pooled_width(component, config),
    }


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Yields those of XL's U-Nets, each with a picture of noise.

    Shapes:
        each: as those of `unet_xl`, and controlnet_cond (B, 3, H, W).
    """
    for inputs in unet_xl.samples(component, config, dims, rng):
        yield *inputs, torch.rand((dims["B"], 3, dims["H"], dims["W"]), generator=rng)
