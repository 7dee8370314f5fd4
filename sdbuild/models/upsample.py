"""Upsampling to any size, in operations that every host has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional as F

from sdbuild.models.replace import replace_each


class Upsample(nn.Module):
    """An `Upsample2D` that doubles rows and columns, and cuts off the last one if it is too many.

    Where a side was odd before it was halved, diffusers stretches n cells to 2n-1: by 17/9, say,
    and what a host makes of such a factor is not written anywhere. The nearest neighbours of 2n-1
    places among n cells are those of 2n without the last, so doubling and cutting is the same.
    """

    def __init__(self, original: Upsample2D) -> None:
        super().__init__()
        self.conv = original.conv

    def forward(
        self, hidden_states: torch.Tensor, output_size: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Returns the convolved picture of twice the size, or of `output_size`.

        Shapes:
            hidden_states: (B, C, H, W); returns (B, C, 2H or 2H-1, 2W or 2W-1).
        """
        doubled = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        if output_size is not None:
            rows, columns = output_size
            doubled = doubled[:, :, :rows, :columns]
        return self.conv(doubled)


def replace_upsamples(network: nn.Module) -> None:
    """Puts ours in the place of every `Upsample2D` of a network; its parameters stay.

    One with a norm, or with a transposed convolution, stays itself.
    """
    replace_each(network, Upsample2D, lambda old: Upsample(old) if _is_plain(old) else old)


def _is_plain(original: Upsample2D) -> bool:
    return (
        original.norm is None and original.interpolate and original.use_conv
        and not original.use_conv_transpose and original.name == "conv"
    )
