"""ControlNets: from a picture to guide by, what a U-Net adds to its residuals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import nn

from sdbuild.base.errors import SourceError
from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models import unet
from sdbuild.models.conditioned import Conditioned
from sdbuild.models.network import Architecture, expect_class
from sdbuild.models.residuals import shapes


class ControlNet(Conditioned):
    """diffusers' ControlNet."""

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Returns the residuals in the order in which the U-Net makes its own, the mid block's
        last.

        Shapes:
            sample: (B, I, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S);
            controlnet_cond: (B, 3, H, W), from 0 to 1; returns one for each of
            `residuals.shapes`.
        """
        embeddings = self.embeddings(encoder_hidden_states)
        down, mid = self.net(sample, timestep, embeddings, controlnet_cond, return_dict=False)
        return *down, mid


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device.

    Raises:
        SourceError: it gives something that no U-Net of a bundle takes.
    """
    return built(ControlNet, component, architecture)


def built(
    wrapper: type[Conditioned], component: Component, architecture: Architecture
) -> nn.Module:
    """Returns a wrapped network on the current default device.

    Raises:
        SourceError: it gives something that no U-Net of a bundle takes.
    """
    expect_class(architecture, "ControlNetModel")
    if architecture.config.get("global_pool_conditions"):
        raise SourceError(
            f"{component.name}: global_pool_conditions is true, as of a ControlNet that shuffles: "
            "its residuals are averaged, which hosts do not do",
            hint="choose another ControlNet")
    return wrapper(ControlNetModel.from_config(dict(architecture.config)))


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """Returns the numbers of its port shapes."""
    return {"B": batch, "I": config["in_channels"], "D": config["cross_attention_dim"],
            "S": TOKENS, "H": height_px, "W": width_px,
            "h": height_px // unet.LATENT_CELL_PX, "w": width_px // unet.LATENT_CELL_PX}


residuals = shapes


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Yields those of U-Nets, each with a picture of noise.

    Shapes:
        each: sample (B, I, h, w), timestep (B,), encoder_hidden_states (B, D, 1, S),
        controlnet_cond (B, 3, H, W).
    """
    for inputs in unet.samples(component, config, dims, rng):
        size = dims["B"], 3, dims["H"], dims["W"]
        yield *inputs, torch.rand(size, generator=rng)
