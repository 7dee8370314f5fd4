"""CLIP's text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.family import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class


class TextEncoder(nn.Module):
    """CLIP's text encoder, from token numbers as floats."""

    def __init__(self, net: CLIPTextModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives the embeddings of all tokens, and of the end token.

        Shapes:
            input_ids: (1, S); returns (1, S, D) and (1, D).
        """
        # Positions are passed in because the network's own table of them is a buffer, which has
        # no numbers on the meta device.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        found = self.net(input_ids=input_ids.to(torch.int32), position_ids=positions)
        return found.last_hidden_state, found.pooler_output


def build(component: Component, architecture: Architecture) -> nn.Module:
    """The network on the current default device."""
    expect_class(architecture, "CLIPTextModel")
    network = TextEncoder(CLIPTextModel(CLIPTextConfig(**architecture.config)))
    for module in network.modules():
        module._buffers.pop("position_ids", None)
    return network


def dims(config: Mapping[str, Any]) -> Dims:
    """The numbers of its port shapes."""
    return {"S": TOKENS, "D": config["hidden_size"]}


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Prompts of a few, of some and of as many tokens as fit, with start and end tokens.

    Shapes:
        each: one (1, S) tensor of token numbers as floats.
    """
    start, end = config["vocab_size"] - 2, config["vocab_size"] - 1
    for length in (3, 20, dims["S"] - 2):
        ids = torch.full((1, dims["S"]), float(end))
        ids[0, 0] = start
        words = torch.randint(0, start, (length,), generator=rng)
        ids[0, 1:1 + length] = words.float()
        yield (ids,)
