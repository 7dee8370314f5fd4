"""The U-Nets of Stable Diffusion XL: they also take a pooled embedding, and numbers about the
picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sdbuild.base.errors import SourceError
from sdbuild.families import Component, Dims
from sdbuild.models import unet
from sdbuild.models.network import Architecture

_CROP_PX = 0.0
_AESTHETIC_SCORE = 6.0
"""diffusers' default aesthetic score for the refiner."""


class UNetXL(unet.UNet):
    """diffusers' U-Net, conditioned on more than a prompt."""

    def forward(  # type: ignore[override]
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        time_ids: torch.Tensor, text_embeds: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the predicted noise.

        Shapes:
            sample: (B, I, h, w); timestep: (B,); encoder_hidden_states: (B, D, 1, S);
            time_ids: (B, 6), the refiner's (B, 5); text_embeds: (B, P); returns (B, C, h, w).
        """
        added = {"time_ids": time_ids, "text_embeds": text_embeds}
        return self.noise(sample, timestep, encoder_hidden_states, added_cond_kwargs=added)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    return unet.built(UNetXL, architecture)


def dims(
    component: Component, config: Mapping[str, Any], batch: int, width_px: int, height_px: int
) -> Dims:
    """Returns the numbers of its port shapes.

    Raises:
        SourceError: what the network adds to the timestep has no room for the component's numbers.
    """
    found = unet.dims(component, config, batch=batch, width_px=width_px, height_px=height_px)
    return {**found, "P": pooled_width(component, config)}


def pooled_width(component: Component, config: Mapping[str, Any]) -> int:
    """Returns the width of the pooled embedding that a network of XL takes.

    Raises:
        SourceError: what the network adds to the timestep has no room for the component's numbers.
    """
    whole, each = (config["projection_class_embeddings_input_dim"],
                   config["addition_time_embed_dim"])
    pooled = int(whole - _numbers(component) * each)
    if pooled < 1:
        raise SourceError(
            f"{component.name}: projection_class_embeddings_input_dim is {whole}, expected more "
            f"than {_numbers(component)} numbers about the picture of {each} each",
            hint="the base model takes six, the refiner five: is it the other one?")
    return pooled


def _numbers(component: Component) -> int:
    """Returns the number of values about the image that the component has as an input."""
    [port] = (port for port in component.inputs if port.name == "time_ids")
    return int(port.shape[1])


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Yields those of other U-Nets, for a picture that was not cropped.

    Shapes:
        each: sample (B, I, h, w), timestep (B,), encoder_hidden_states (B, D, 1, S),
        time_ids (B, 6) or (B, 5), text_embeds (B, P).
    """
    height, width = (float(side * unet.LATENT_CELL_PX) for side in (dims["h"], dims["w"]))
    rest = [height, width] if _numbers(component) == 6 else [_AESTHETIC_SCORE]
    time_ids = torch.tensor([[height, width, _CROP_PX, _CROP_PX, *rest]]).repeat(dims["B"], 1)
    for inputs in unet.samples(component, config, dims, rng):
        yield *inputs, time_ids, torch.randn(dims["B"], dims["P"], generator=rng)
