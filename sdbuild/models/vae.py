"""The two halves of the autoencoder between pictures and latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from sdbuild.families import Component, Dims
from sdbuild.models.network import Architecture, expect_class


class Decoder(nn.Module):
    """Latents to a picture."""

    def __init__(self, net: AutoencoderKL) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Returns a picture from -1 to 1.

        Shapes:
            z: (1, C, h, w); returns (1, 3, H, W).
        """
        return self.net.decode(z, return_dict=False)[0]


class Encoder(nn.Module):
    """A picture to the mean and log-variance of its latents."""

    def __init__(self, net: AutoencoderKL) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns mean and log-variance, one after the other.

        Shapes:
            x: (1, 3, H, W); returns (1, 2C, h, w).
        """
        moments = self.net.encoder(x)
        return moments if self.net.quant_conv is None else self.net.quant_conv(moments)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the component's half of the network on the current default device."""
    expect_class(architecture, "AutoencoderKL")
    net = AutoencoderKL.from_config(dict(architecture.config))
    if component.name == "vae_decoder":
        net.encoder, net.quant_conv = None, None
        return Decoder(net)
    net.decoder, net.post_quant_conv = None, None
    return Encoder(net)


def dims(component: Component, config: Mapping[str, Any], width_px: int, height_px: int) -> Dims:
    """Returns the numbers of its port shapes."""
    cell_px = 2 ** (len(config["block_out_channels"]) - 1)
    channels = config["latent_channels"]
    return {
        "C": channels, "2C": 2 * channels, "W": width_px, "H": height_px,
        "h": height_px // cell_px, "w": width_px // cell_px,
    }


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Latents as the U-Net leaves them, or smooth pictures with a little noise.

    Shapes:
        each: one (1, C, h, w) or (1, 3, H, W) tensor.
    """
    for _ in range(2):
        if component.name == "vae_decoder":
            latents = torch.randn(1, dims["C"], dims["h"], dims["w"], generator=rng)
            yield (latents / config["scaling_factor"],)
        else:
            coarse = torch.rand(1, 3, 4, 4, generator=rng) * 2 - 1
            picture = nn.functional.interpolate(coarse, (dims["H"], dims["W"]), mode="bicubic")
            noise = torch.randn(picture.shape, generator=rng) / 50
            yield ((picture + noise).clamp(-1, 1),)
