"""The residuals that a U-Net passes from its way down to its way up, and a ControlNet adds to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from sdbuild.families import Component, Dims

Samples = Callable[[Component, Mapping[str, Any], Dims, torch.Generator], Iterator[tuple]]
"""Yields the inputs that parity of a network is measured on."""


def shapes(config: Mapping[str, Any], dims: Dims) -> list[tuple[int, int, int, int]]:
    """Returns the shapes of a network's residuals, in the order in which it makes them, the mid
    block's output last.

    Args:
        config: of a `UNet2DConditionModel` or a `ControlNetModel`.

    Source:
        diffusers, `ControlNetModel.__init__`: one after the first convolution, one after each layer
        of each block, and one after each halving.
    """
    channels = list(config["block_out_channels"])
    layers = config["layers_per_block"]
    counts = [layers] * len(channels) if isinstance(layers, int) else list(layers)
    height, width = dims["h"], dims["w"]
    found = [(dims["B"], channels[0], height, width)]
    for number, (width_of_block, count) in enumerate(zip(channels, counts, strict=True), 1):
        found += [(dims["B"], width_of_block, height, width)] * count
        if number < len(channels):
            height, width = -(-height // 2), -(-width // 2)  # a padded convolution rounds up
            found.append((dims["B"], width_of_block, height, width))
    return [*found, (dims["B"], channels[-1], height, width)]


def with_additions(samples: Samples) -> Samples:
    """Returns the samples of a U-Net, each with normal noise to add to its residuals.

    Shapes:
        each: as those of `samples`, and one tensor for each of `shapes`.
    """
    def added(
        component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
    ) -> Iterator[tuple]:
        for inputs in samples(component, config, dims, rng):
            yield *inputs, *(torch.randn(shape, generator=rng) for shape in shapes(config, dims))

    return added
