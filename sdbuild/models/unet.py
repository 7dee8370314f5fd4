"""The U-Net of Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional as F

from sdbuild.base.errors import SourceError
from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.conditioned import Conditioned
from sdbuild.models.network import Architecture, expect_class
from sdbuild.models.prediction import VelocityToNoise, to_noise

LATENT_CELL_PX = 8
"""Pixels on a side of a latent cell, fixed by the autoencoder's three halvings."""

DISTILLED = 8.5
"""The guidance that a distilled U-Net has where nobody says: that of diffusers' pipeline."""

_TIMESTEPS = (1, 21, 501, 981)


class UNet(Conditioned):
    """diffusers' U-Net, to noise if it predicts a velocity.

    `guidance` is the embedding of the guidance that it was distilled to take, (1, G), if it was.
    """

    def __init__(
        self, net: UNet2DConditionModel, velocity_to_noise: VelocityToNoise | None = None,
        guidance: torch.Tensor | None = None,
    ) -> None:
        super().__init__(net)
        self.velocity_to_noise = velocity_to_noise
        self.guidance = guidance

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """Returns the predicted noise.

        Shapes:
            sample: (B, I, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S);
            returns (B, C, h, w).
        """
        return self.noise(sample, timestep, encoder_hidden_states)

    def noise(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        **conditions: Any,
    ) -> torch.Tensor:
        """Returns the predicted noise, given what else the network takes.

        Shapes:
            sample: (B, I, h, w), of which the first C channels are the noisy latents; others as in
            `forward`.
        """
        embeddings = self.embeddings(encoder_hidden_states)
        if self.guidance is not None:
            # Of an input, by a zero: from constants and weights alone coremltools would compute a
            # constant, in which no other checkpoint has a place.
            zero = timestep[:, None] * 0
            conditions["timestep_cond"] = self.guidance.to(sample.device) + zero  # -> (B, G)
        found = self.net(sample, timestep, embeddings, return_dict=False, **conditions)[0]
        if self.velocity_to_noise is None:
            return found
        channels = found.shape[1]
        latents = sample if sample.shape[1] == channels else sample[:, :channels]
        return self.velocity_to_noise(found, latents, timestep)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    return built(UNet, architecture)


def built(wrapper: type[UNet], architecture: Architecture) -> UNet:
    """Returns a wrapped network on the current default device."""
    expect_class(architecture, "UNet2DConditionModel")
    prediction = architecture.prediction
    return wrapper(
        UNet2DConditionModel.from_config(dict(architecture.config)),
        to_noise(prediction) if prediction else None,
        _guidance(architecture),
    )


def _guidance(architecture: Architecture) -> torch.Tensor | None:
    """Returns the embedding of the guidance that the U-Net takes, (1, G); None if it takes none."""
    width, guidance = architecture.config.get("time_cond_proj_dim"), architecture.distilled_guidance
    if width:
        return guidance_embedding(DISTILLED if guidance is None else guidance, width)
    if guidance is not None:
        raise SourceError(
            f"distilled_guidance={guidance:g}: the U-Net takes no guidance as an input",
            hint="omit it; guidance=X is that of the images")
    return None


def guidance_embedding(guidance: float, width: int) -> torch.Tensor:
    """Returns the guidance as a distilled U-Net takes it: sines and cosines of it, less one.

    Shapes:
        returns (1, width).

    Source:
        Meng et al., "On Distillation of Guided Diffusion Models", 2022; the frequencies are those
        of timesteps, as in diffusers' `LatentConsistencyModelPipeline`.
    """
    with torch.device("cpu"):  # the network itself may be built where nothing has numbers
        half = width // 2
        frequencies = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
        angles = (guidance - 1) * 1000 * frequencies
        found = torch.cat([angles.sin(), angles.cos()])
        return F.pad(found, (0, width - 2 * half))[None]


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """Returns the numbers of its port shapes."""
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
