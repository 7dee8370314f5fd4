"""The encoder of T5, the third text encoder of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import (
    T5Attention,
    T5DenseActDense,
    T5DenseGatedActDense,
    T5Stack,
)

from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class

_END = 1


class TextEncoderT5(nn.Module):
    """T5's encoder, from token numbers as floats; every token sees every other, padding too, as
    the transformer was trained with it."""

    def __init__(self, net: T5Stack) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings of all tokens.

        Shapes:
            input_ids, attention_mask: (1, S); returns (1, D, 1, S).
        """
        hidden = self.net.embed_tokens(input_ids.to(torch.int32))
        bias = self.net.block[0].layer[0].SelfAttention.relative_attention_bias.weight[None]
        for block in self.net.block:
            attention, feed_forward = block.layer
            hidden = hidden + attended(attention.SelfAttention, attention.layer_norm(hidden), bias)
            hidden = hidden + fed(feed_forward.DenseReluDense, feed_forward.layer_norm(hidden))
        found = self.net.final_layer_norm(hidden)
        return found.transpose(1, 2)[:, :, None]  # (1, S, D) -> (1, D, 1, S)


def attended(attention: T5Attention, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns what T5's attention makes of tokens, with its bias by distance; unlike others it does
    not scale.

    Shapes:
        hidden: (1, S, D); bias: (1, heads, S, S); returns (1, S, D).
    """
    query, key, value = (
        layer(hidden).unflatten(2, (attention.n_heads, -1)).transpose(1, 2)  # (1, heads, S, d)
        for layer in (attention.q, attention.k, attention.v))
    weights = (query @ key.transpose(2, 3) + bias).softmax(-1)
    return attention.o((weights @ value).transpose(1, 2).flatten(2))


_DOWN = 1 / 64
"""The factor of what goes into the last matrix of a feed-forward layer, whose results are divided
by it: in T5-XXL they are more than fp16 holds."""


def fed(layer: T5DenseGatedActDense | T5DenseActDense, hidden: torch.Tensor) -> torch.Tensor:
    """Returns what T5's feed-forward layer makes of tokens.

    Shapes:
        hidden: (1, S, D); returns (1, S, D).
    """
    if isinstance(layer, T5DenseGatedActDense):
        found = layer.act(layer.wi_0(hidden)) * layer.wi_1(hidden)
    else:
        found = layer.act(layer.wi(hidden))
    made: torch.Tensor = layer.wo(found * _DOWN) / _DOWN
    return made


class _Bias(nn.Module):
    """The bias of attention between any two tokens, where the checkpoint has one by distance.

    Shapes:
        weight: (heads, S, S).
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, TOKENS, TOKENS), requires_grad=False)


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    expect_class(architecture, "T5EncoderModel")
    config = T5Config(**architecture.config, use_cache=False, is_encoder_decoder=False)
    net = T5Stack(config)
    attention = net.block[0].layer[0].SelfAttention
    attention.relative_attention_bias = _Bias(attention.n_heads)
    return TextEncoderT5(net)


def dims(component: Component, config: Mapping[str, Any]) -> Dims:
    """Returns the numbers of its port shapes."""
    return {"S": TOKENS, "D": config["d_model"]}


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Prompts of a few, of some and of as many tokens as fit, with an end token, and the mask that
    hosts send.

    Shapes:
        each: two (1, S) tensors of floats.
    """
    for length in (3, 20, dims["S"] - 1):
        ids = torch.zeros(1, dims["S"])
        words = torch.randint(_END + 1, config["vocab_size"], (length,), generator=rng)
        ids[0, :length] = words.float()
        ids[0, length] = _END
        yield ids, (ids == 0).float()
