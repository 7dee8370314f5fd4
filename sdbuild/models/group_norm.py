"""Group normalization in a form that fp16 can hold."""

from __future__ import annotations

import torch
from torch import nn

from sdbuild.models.replace import replace_each


class GroupNorm(nn.Module):
    """A `nn.GroupNorm` as one instance normalization of its groups, then scale and shift.

    coremltools lowers `group_norm` to its formula: difference from the mean, square, mean. In
    fp16 a difference above 256 has an infinite square, and the group comes out as zeros without
    an error; decoders of Stable Diffusion get there. As `instance_norm` it is one operation,
    which keeps its sums to itself.
    """

    def __init__(self, original: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = original.num_groups, original.eps
        self.weight, self.bias = original.weight, original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes the groups of channels.

        Shapes:
            x: (B, C, ...) of rank 3 or 4; returns the same.
        """
        batch, channels = x.shape[:2]
        groups = x.reshape(batch, self.num_groups, -1, x.shape[-1])  # -> (B, G, C/G*H, W)
        normal = nn.functional.instance_norm(groups, eps=self.eps).reshape(x.shape)
        affine = (1, channels, *[1] * (x.dim() - 2))
        return normal * self.weight.reshape(affine) + self.bias.reshape(affine)


def replace_group_norms(network: nn.Module) -> None:
    """Puts ours in the place of every `nn.GroupNorm` of a network; its parameters stay."""
    replace_each(network, nn.GroupNorm, GroupNorm)
