"""The U-Net of Stable Diffusion 1.x and 2.x, as diffusers lays it out (`attention=original`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class
from sdbuild.models.prediction import VelocityToNoise, to_noise

LATENT_CELL_PX = 8
"""Pixels on a side of a latent cell, fixed by the autoencoder's three halvings."""

_TIMESTEPS = (1, 21, 501, 981)


class UNet(nn.Module):
    """diffusers' U-Net, from embeddings with channels first, to noise if it predicts a velocity."""

    def __init__(
        self, net: UNet2DConditionModel, velocity_to_noise: VelocityToNoise | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.velocity_to_noise = velocity_to_noise

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """Gives the predicted noise.

        Shapes:
            sample: (B, C, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S);
            returns (B, C, h, w).
        """
        embeddings = self.embeddings(encoder_hidden_states)
        found = self.net(sample, timestep, embeddings, return_dict=False)[0]
        if self.velocity_to_noise is None:
            return found
        return self.velocity_to_noise(found, sample, timestep)

    def embeddings(self, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        """The embeddings as the transformers take them.

        Shapes:
            encoder_hidden_states: (B, D, 1, S); returns (B, S, D).
        """
        return encoder_hidden_states.squeeze(2).permute(0, 2, 1)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """The network on the current default device."""
    expect_class(architecture, "UNet2DConditionModel")
    prediction = architecture.prediction
    return UNet(
        UNet2DConditionModel.from_config(dict(architecture.config)),
        to_noise(prediction) if prediction else None,
    )


def dims(config: Mapping[str, Any], batch: int, width_px: int, height_px: int) -> Dims:
    """The numbers of its port shapes."""
    return {
        "B": batch, "C": config["in_channels"], "D": config["cross_attention_dim"], "S": TOKENS,
        "h": height_px // LATENT_CELL_PX, "w": width_px // LATENT_CELL_PX,
    }


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Normal noise and embeddings at timesteps from the least to nearly the most noise.

    Shapes:
        each: sample (B, C, h, w), timestep (B,), encoder_hidden_states (B, D, 1, S).
    """
    for timestep in _TIMESTEPS:
        sample = torch.randn(dims["B"], dims["C"], dims["h"], dims["w"], generator=rng)
        embeddings = torch.randn(dims["B"], dims["D"], 1, dims["S"], generator=rng)
        yield sample, torch.full((dims["B"],), float(timestep)), embeddings
