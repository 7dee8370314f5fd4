"""`attention=split_einsum`: the U-Net's transformers as the Neural Engine wants them.

Tokens stay on the last axis of (B, C, 1, S) from one end of a transformer to the other, linear
layers are 1×1 convolutions, and each head attends alone. The parameters are the checkpoint's own,
under their own names and in their own shapes. `split_einsum_v2.py` cuts the queries, too.

Source:
    "Deploying Transformers on the Apple Neural Engine", machinelearning.apple.com, 2022;
    apple/ml-stable-diffusion at e12202c, `attention.py` and `unet.py`, MIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models import attention as original
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel
from torch import nn
from torch.nn import functional as F

from sdbuild.base.errors import SourceError
from sdbuild.models.conditioned import Conditioned
from sdbuild.models.replace import replace_each


class SplitTransformer(nn.Module):
    """A `Transformer2DModel` that flattens the picture once, and otherwise moves nothing."""

    def __init__(self, whole: Transformer2DModel, query_block: int | None) -> None:
        super().__init__()
        self.norm = whole.norm
        self.proj_in, self.proj_out = Pointwise(whole.proj_in), Pointwise(whole.proj_out)
        self.transformer_blocks = nn.ModuleList(
            SplitBlock(block, query_block) for block in whole.transformer_blocks
        )

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        """Returns the picture after all blocks, added to what it was.

        Shapes:
            hidden_states: (B, C, H, W); encoder_hidden_states: (B, D, 1, S);
            returns (B, C, H, W), alone in a tuple.
        """
        x = self.proj_in(self.norm(hidden_states))
        x = x.reshape(*x.shape[:2], 1, -1)  # (B, C, H, W) -> (B, C, 1, H*W)
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states)
        x = x.reshape(*x.shape[:2], *hidden_states.shape[2:])  # -> (B, C, H, W)
        return (self.proj_out(x) + hidden_states,)


class SplitBlock(nn.Module):
    """A `BasicTransformerBlock`: attention among the tokens, to the prompt, feed-forward."""

    def __init__(self, whole: original.BasicTransformerBlock, query_block: int | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(whole.norm1), ChannelNorm(whole.norm2)
        self.norm3 = ChannelNorm(whole.norm3)
        self.attn1 = SplitAttention(whole.attn1, query_block)
        self.attn2 = SplitAttention(whole.attn2, query_block)
        self.ff = SplitFeedForward(whole.ff)

    def forward(self, x: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Returns the tokens with what each part adds to them.

        Shapes:
            x: (B, C, 1, S); prompt: (B, D, 1, S_k); returns (B, C, 1, S).
        """
        normal = self.norm1(x)
        x = self.attn1(normal, normal) + x
        x = self.attn2(self.norm2(x), prompt) + x
        return self.ff(self.norm3(x)) + x


class SplitAttention(nn.Module):
    """An `Attention`, head by head; with a `query_block`, so many queries at a time."""

    def __init__(self, whole: Attention, query_block: int | None) -> None:
        super().__init__()
        self.to_q, self.to_k = Pointwise(whole.to_q), Pointwise(whole.to_k)
        self.to_v = Pointwise(whole.to_v)
        self.to_out = nn.ModuleList([Pointwise(whole.to_out[0])])
        self.scale, self.head_dim = whole.scale, whole.inner_dim // whole.heads
        self.query_block = query_block

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Returns for each token of `x` what it takes from the context.

        Shapes:
            x: (B, C, 1, S_q); context: (B, D, 1, S_k); returns (B, C, 1, S_q).
        """
        # Scaled are the keys, so that no score is too large for fp16 before it is scaled, and
        # after the transposition, because coremltools folds a factor that follows a convolution
        # into its weights, where no checkpoint could be bound.
        keys = self.to_k(context).transpose(1, 3) * self.scale  # (B, C, 1, S_k) -> (B, S_k, 1, C)
        heads = zip(
            self.to_q(x).split(self.head_dim, dim=1),
            keys.split(self.head_dim, dim=3),
            self.to_v(context).split(self.head_dim, dim=1),
            strict=True,
        )
        return self.to_out[0](torch.cat([self._head(*head) for head in heads], dim=1))

    def _head(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Returns one head's values, weighted.

        Shapes:
            q: (B, c, 1, S_q); k: (B, S_k, 1, c); v: (B, c, 1, S_k); returns as q.
        """
        if self.query_block is None or q.shape[3] <= self.query_block:
            return _attend(q, k, v)
        return torch.cat([_attend(part, k, v) for part in q.split(self.query_block, dim=3)], dim=3)


class SplitFeedForward(nn.Module):
    """A `FeedForward` with GEGLU, whose halves are channels."""

    def __init__(self, whole: original.FeedForward) -> None:
        super().__init__()
        self.net = whole.net
        self.net[0].proj, self.net[2] = Pointwise(whole.net[0].proj), Pointwise(whole.net[2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the tokens after both layers.

        Shapes:
            x: (B, C, 1, S); returns the same.
        """
        values, gate = self.net[0].proj(x).chunk(2, dim=1)  # -> 2 of (B, 4*C, 1, S)
        return self.net[2](values * F.gelu(gate))


class Pointwise(nn.Module):
    """A `nn.Linear`, or a 1×1 `nn.Conv2d`, as a convolution over the channels of each token."""

    def __init__(self, linear: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layer's output.

        Shapes:
            x: (B, in, ...) of rank 4; returns (B, out, ...).
        """
        weight = self.weight.reshape(*self.weight.shape[:2], 1, 1)  # (out, in) -> (out, in, 1, 1)
        return F.conv2d(x, weight, self.bias)


class ChannelNorm(nn.Module):
    """A `nn.LayerNorm` over the channels of each token.

    Written so that coremltools' pass `fuse_layernorm_or_instancenorm` (its pattern 5) makes the
    first three lines one `layer_norm`: left as they are, the squares would overflow in fp16.
    """

    def __init__(self, whole: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = whole.weight, whole.bias, whole.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes each token.

        Shapes:
            x: (B, C, 1, S); returns the same.
        """
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)  # -> (B, 1, 1, S)
        normal = centred * torch.rsqrt(variance + self.eps)
        return normal * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


def lay_out(network: Conditioned, query_block: int | None = None) -> Conditioned:
    """Returns the same network, with split transformers that took over its parameters.

    Raises:
        SourceError: its transformers have parts that this layout does not know.
    """
    net = network.net
    unknown = list(_unknown(net))
    if unknown:
        raise SourceError(
            f"attention=split_einsum does not know these parts of the network: "
            f"{', '.join(unknown[:8])}",
            hint="attention=original supports every network that diffusers does",
        )
    replace_each(net, Transformer2DModel, lambda old: SplitTransformer(old, query_block))
    network.is_split = True
    return network


def _unknown(net: nn.Module) -> Iterator[str]:
    """Yields the parts that attend in another way than Stable Diffusion 1.x and 2.x do, by name."""
    if net.encoder_hid_proj is not None:
        yield "encoder_hid_proj"
    for name, module in net.named_modules():
        is_plain = True
        if isinstance(module, original.BasicTransformerBlock):
            is_plain = _is_plain(module)
        elif isinstance(module, Attention):
            is_plain = name.endswith((".attn1", ".attn2"))
        if not is_plain or isinstance(module, DualTransformer2DModel):
            yield name


def _is_plain(block: original.BasicTransformerBlock) -> bool:
    """Whether a block attends among its tokens, then to the prompt, and has a GEGLU."""
    return (
        block.norm_type == "layer_norm"
        and block.attn2 is not None
        and not block.only_cross_attention
        and not hasattr(block, "fuser")
        and isinstance(block.ff.net[0], GEGLU)
    )


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Returns one head's values, weighted by the softmax over the keys.

    Shapes:
        q: (B, c, 1, S_q); k: (B, S_k, 1, c), scaled; v: (B, c, 1, S_k); returns as q.
    """
    scores = torch.einsum("bchq,bkhc->bkhq", q, k)  # -> (B, S_k, 1, S_q)
    return torch.einsum("bkhq,bchk->bchq", scores.softmax(dim=1), v)
