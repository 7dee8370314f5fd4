"""The transformer of Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from sdbuild.base.errors import SourceError
from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class
from sdbuild.models.unet import LATENT_CELL_PX

_TIMESTEPS = (1000.0, 857.69, 602.15, 250.5, 8.93)


class Transformer(nn.Module):
    """diffusers' transformer, with what hosts call its inputs and outputs."""

    def __init__(self, net: SD3Transformer2DModel) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, latent_image_embeddings: torch.Tensor, timestep: torch.Tensor,
        token_level_text_embeddings: torch.Tensor, pooled_text_embeddings: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the predicted velocity.

        Shapes:
            latent_image_embeddings: (B, C, h, w); timestep: (B,);
            token_level_text_embeddings: (B, D, 1, S); pooled_text_embeddings: (B, P, 1, 1);
            returns (B, C, h, w).
        """
        tokens = token_level_text_embeddings.squeeze(2).permute(0, 2, 1)  # -> (B, S, D)
        pooled = pooled_text_embeddings.flatten(1)  # -> (B, P)
        return self.net(
            hidden_states=latent_image_embeddings, encoder_hidden_states=tokens,
            pooled_projections=pooled, timestep=timestep, return_dict=False)[0]


class Patches(nn.Module):
    """Patches of the latents with their positions, which are a parameter and no buffer: the part of
    the checkpoint's table that the size of the picture needs.

    Shapes:
        positions: (rows, columns, channels).
    """

    def __init__(self, proj: nn.Conv2d, positions: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = proj
        self.pos_embed = nn.Parameter(torch.empty(positions), requires_grad=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns the embedding of each patch.

        Shapes:
            latents: (B, C, h, w); returns (B, rows * columns, channels).
        """
        found = self.proj(latents).permute(0, 2, 3, 1)  # -> (B, rows, columns, channels)
        return (found + self.pos_embed).flatten(1, 2)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device, for pictures of the architecture's size.

    Raises:
        SourceError: its table of positions is too small for them.
    """
    expect_class(architecture, "SD3Transformer2DModel")
    config = architecture.config
    net = SD3Transformer2DModel.from_config(dict(config))
    patch_px = config["patch_size"] * LATENT_CELL_PX
    columns, rows = (side // patch_px for side in architecture.size_px)
    if max(columns, rows) > config["pos_embed_max_size"]:
        size = "x".join(map(str, architecture.size_px))
        most_px = config["pos_embed_max_size"] * patch_px
        raise SourceError(f"{component.name}: size={size}, expected at most {most_px} on a side, "
                          "by pos_embed_max_size of its config", hint="use a smaller size")
    net.pos_embed = Patches(net.pos_embed.proj, (rows, columns, net.inner_dim))
    return Transformer(net)


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """Returns the numbers of its port shapes: 77 tokens of CLIP, and as many of T5."""
    return {
        "B": batch, "C": config["in_channels"], "D": config["joint_attention_dim"], "S": 2 * TOKENS,
        "P": config["pooled_projection_dim"],
        "h": height_px // LATENT_CELL_PX, "w": width_px // LATENT_CELL_PX,
    }


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Yields normal noise and embeddings, at timesteps from nearly the least to the most noise.

    Shapes:
        each: latent_image_embeddings (B, C, h, w), timestep (B,),
        token_level_text_embeddings (B, D, 1, S), pooled_text_embeddings (B, P, 1, 1).
    """
    for timestep in _TIMESTEPS:
        latents = torch.randn(dims["B"], dims["C"], dims["h"], dims["w"], generator=rng)
        tokens = torch.randn(dims["B"], dims["D"], 1, dims["S"], generator=rng)
        pooled = torch.randn(dims["B"], dims["P"], 1, 1, generator=rng)
        yield latents, torch.full((dims["B"],), timestep), tokens, pooled
