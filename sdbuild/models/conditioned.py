"""The common part of U-Nets and ControlNets, which are conditioned on a prompt."""

from __future__ import annotations

import torch
from torch import nn


class Conditioned(nn.Module):
    """A network of diffusers that takes a prompt's embeddings with channels first.

    `is_split` says that its transformers take the embeddings as they come: a layout of attention
    replaced them.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.is_split = False

    def embeddings(self, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings as the transformers take them.

        Shapes:
            encoder_hidden_states: (B, D, 1, S); returns (B, S, D), or the same if they are split.
        """
        if self.is_split:
            return encoder_hidden_states
        return encoder_hidden_states.squeeze(2).permute(0, 2, 1)
