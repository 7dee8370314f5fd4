"""CLIP's text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.base.errors import SourceError
from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class, unwrapped


class TextEncoder(nn.Module):
    """CLIP's text encoder, from token numbers as floats.

    With `padding`, the tokens after the first end token become the checkpoint's own pad token,
    whichever a host pads with.
    """

    def __init__(self, net: nn.Module, padding: Mapping[str, int] | None) -> None:
        super().__init__()
        self.net = net
        self.padding = padding

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the embeddings of all tokens, and of the end token.

        Shapes:
            input_ids: (1, S); returns (1, S, D) and (1, D).
        """
        found = self.net(input_ids=self.tokens(input_ids), position_ids=self.positions(input_ids))
        return found.last_hidden_state, found.pooler_output

    def positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the positions of the tokens. They are passed in because the network's own table
        of them is a buffer, which has no numbers on the meta device.

        Shapes:
            input_ids: (1, S); returns the same.
        """
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]

    def tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the tokens that the network is to see, as integers: fp16 could not hold their
        numbers.

        Shapes:
            input_ids: (1, S); returns the same.
        """
        found = input_ids.to(torch.int32)
        if self.padding is None:
            return found
        is_end = (found == self.padding["end_token_id"]).to(torch.int32)
        # End tokens before each token: the running count without its own.
        is_after = is_end.cumsum(1, dtype=torch.int32) - is_end > 0
        return torch.where(is_after, self.padding["pad_token_id"], found)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device.

    Raises:
        SourceError: the tokenizer has tokens that the network does not know.
    """
    expect_class(architecture, "CLIPTextModel")
    net = unwrapped(CLIPTextModel(CLIPTextConfig(**architecture.config)), "text_model")
    return finished(TextEncoder(net, architecture.padding), component)


def finished(network: TextEncoder, component: Component) -> TextEncoder:
    """Returns the network without its tables of positions.

    Raises:
        SourceError: it pads with tokens that the network does not know.
    """
    numbers, size = (network.padding or {}).values(), network.net.config.vocab_size
    if any(number >= size for number in numbers):
        raise SourceError(f"{component.name}: it knows {size} tokens, and the tokenizer ends and "
                          f"pads prompts with the numbers {', '.join(map(str, numbers))}")
    for module in network.modules():
        module._buffers.pop("position_ids", None)
    return network


def dims(component: Component, config: Mapping[str, Any]) -> Dims:
    """Returns the numbers of its port shapes."""
    return {"S": TOKENS, "D": config["hidden_size"]}


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Prompts of a few, of some and of as many tokens as fit, with start and end tokens.

    Shapes:
        each: one (1, S) tensor of token numbers as floats.
    """
    start, end = config["vocab_size"] - 2, end_token(config)
    for length in (3, 20, dims["S"] - 2):
        ids = torch.full((1, dims["S"]), float(end))
        ids[0, 0] = start
        words = torch.randint(0, start, (length,), generator=rng)
        ids[0, 1:1 + length] = words.float()
        yield (ids,)


def end_token(config: Mapping[str, Any]) -> int:
    """Returns the number of the end token: the last of a vocabulary whose config still says 2, for
    which transformers takes the greatest number in a prompt."""
    found = config.get("eos_token_id", 2)
    return config["vocab_size"] - 1 if found == 2 else found
