"""The U-Net of Stable Diffusion 1.x and 2.x."""

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
    """diffusers' U-Net, from embeddings with channels first, to noise if it predicts a velocity.

    `is_split` says that its transformers take the embeddings as they come: a layout of attention
    replaced them.
    """

    def __init__(
        self, net: UNet2DConditionModel, velocity_to_noise: VelocityToNoise | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.velocity_to_noise = velocity_to_noise
        self.is_split = False

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """Gives the predicted noise.

        Shapes:
            sample: (B, I, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S);
            returns (B, C, h, w).
        """
        return self.noise(sample, timestep, encoder_hidden_states)

    def noise(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        **conditions: Any,
    ) -> torch.Tensor:
        """The predicted noise, given what else the network takes.

        Shapes:
            sample: (B, I, h, w), of which the first C channels are the noisy latents; others as in
            `forward`.
        """
        embeddings = encoder_hidden_states if self.is_split \
            else encoder_hidden_states.squeeze(2).permute(0, 2, 1)  # -> (B, S, D)
        found = self.net(sample, timestep, embeddings, return_dict=False, **conditions)[0]
        if self.velocity_to_noise is None:
            return found
        channels = found.shape[1]
        latents = sample if sample.shape[1] == channels else sample[:, :channels]
        return self.velocity_to_noise(found, latents, timestep)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """The network on the current default device."""
    return built(UNet, architecture)


def built(wrapper: type[UNet], architecture: Architecture) -> UNet:
    """A wrapped network on the current default device."""
    expect_class(architecture, "UNet2DConditionModel")
    prediction = architecture.prediction
    return wrapper(
        UNet2DConditionModel.from_config(dict(architecture.config)),
        to_noise(prediction) if prediction else None,
    )


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """The numbers of its port shapes."""
    return {
        "B": batch, "I": config["in_channels"], "C": config["out_channels"],
        "D": config["cross_attention_dim"], "S": TOKENS,
        "h": height_px // LATENT_CELL_PX, "w": width_px // LATENT_CELL_PX,
    }


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Normal noise and embeddings at timesteps from the least to nearly the most noise.

    Shapes:
        each: sample (B, I, h, w), timestep (B,), encoder_hidden_states (B, D, 1, S).
    """
    for timestep in _TIMESTEPS:
        sample = torch.randn(dims["B"], dims["I"], dims["h"], dims["w"], generator=rng)
        embeddings = torch.randn(dims["B"], dims["D"], 1, dims["S"], generator=rng)
        yield sample, torch.full((dims["B"],), float(timestep)), embeddings
