"""The meaning of a U-Net's output: noise, or a velocity that is turned into noise in its graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional as F

from sdbuild.base.errors import SourceError

_MOST_TIMESTEPS = 2048
"""The timestep is an fp16 input, which holds whole numbers to 2048."""


class VelocityToNoise(nn.Module):
    """The noise ε in a noisy sample, from the velocity v that a U-Net predicts for it.

    ε = √ᾱₜ·v + √(1-ᾱₜ)·xₜ, where ᾱₜ is the share of the picture's variance at timestep t. Both
    roots come from tables, by a convolution with a hat function of the timestep: 1 at its own
    place, and at a timestep between two the share of each. That is exact in fp16, and made of
    operations of floats that run on GPU and Neural Engine; a `gather` wants integers and the CPU.

    Source:
        Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022,
        appendix D: v = √ᾱ·ε - √(1-ᾱ)·x.
    """

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        super().__init__()
        # Plain tensors, not buffers: their numbers are kept where the network's have none.
        self.of_velocity = alphas_cumprod.sqrt().reshape(1, -1, 1, 1)
        self.of_sample = (1 - alphas_cumprod).sqrt().reshape(1, -1, 1, 1)

    def forward(
        self, velocity: torch.Tensor, sample: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Returns the noise; timesteps beyond the table are its first or last.

        Shapes:
            velocity, sample: (B, C, h, w); timestep: (B,); returns (B, C, h, w).
        """
        count = self.of_sample.shape[1]
        places = torch.arange(count, dtype=sample.dtype, device=sample.device)
        time = timestep.reshape(-1, 1, 1, 1).clamp(0, count - 1)
        hat = F.relu(1 - (time - places.reshape(1, -1, 1, 1)).abs())  # (B, timesteps, 1, 1)
        of_velocity = F.conv2d(hat, self.of_velocity.to(sample.device))  # -> (B, 1, 1, 1)
        of_sample = F.conv2d(hat, self.of_sample.to(sample.device))
        return of_velocity * velocity + of_sample * sample


def to_noise(prediction: Mapping[str, Any]) -> VelocityToNoise:
    """Returns the module that turns a prediction into noise.

    Args:
        prediction: its `type` as diffusers names it, and the `schedule` of noise in the terms of
            diffusers' schedulers.

    Raises:
        SourceError: no way is known, or the schedule is none.
    """
    if prediction["type"] != "v_prediction":
        raise SourceError(
            f"scheduler_config.json: prediction_type is {prediction['type']!r}, "
            "expected epsilon or v_prediction",
            hint="prediction=checkpoint leaves the U-Net's output as it is",
        )
    try:
        with torch.device("cpu"):  # the network itself may be built where nothing has numbers
            alphas_cumprod = DDIMScheduler(**prediction["schedule"]).alphas_cumprod
    except Exception as error:  # diffusers raises whatever it meets
        raise SourceError(
            f"scheduler_config.json: it does not make a schedule of noise: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not 1 < len(alphas_cumprod) <= _MOST_TIMESTEPS:
        raise SourceError(
            f"scheduler_config.json: {len(alphas_cumprod)} timesteps, expected at most "
            f"{_MOST_TIMESTEPS}, which a timestep in fp16 can tell apart"
        )
    return VelocityToNoise(alphas_cumprod)
