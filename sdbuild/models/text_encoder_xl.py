"""The text encoders of Stable Diffusion XL: CLIP's, and OpenCLIP's with a projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdbuild.families import TOKENS, Component, Dims
from sdbuild.models.network import Architecture, expect_class, unwrapped
from sdbuild.models.text_encoder import TextEncoder, finished, samples

__all__ = ["build", "dims", "samples"]

_WITH_PROJECTION = "CLIPTextModelWithProjection"


class TextEncoderXL(TextEncoder):
    """A text encoder that gives what its last layer but one makes of each token."""

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the embeddings of all tokens, and of the end token.

        Shapes:
            input_ids: (1, S); returns (1, S, D) and (1, P).
        """
        found = self.net(input_ids=self.tokens(input_ids), position_ids=self.positions(input_ids),
                         output_hidden_states=True)
        pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
        return found.hidden_states[-2], pooled


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device.

    Raises:
        SourceError: the tokenizer has tokens that the network does not know.
    """
    expect_class(architecture, "CLIPTextModel", _WITH_PROJECTION)
    config = CLIPTextConfig(**architecture.config)
    net = CLIPTextModelWithProjection(config) if architecture.class_name == _WITH_PROJECTION \
        else unwrapped(CLIPTextModel(config), "text_model")
    return finished(TextEncoderXL(net, architecture.padding), component)


def dims(component: Component, config: Mapping[str, Any]) -> Dims:
    """Returns the numbers of its port shapes."""
    width = config["hidden_size"]
    return {"S": TOKENS, "D": width, "P": config.get("projection_dim", width)}
