"""Activation checkpointing: blocks keep only their inputs, and are recomputed in the backward
pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

_BLOCKS = frozenset({
    "ResnetBlock2D", "BasicTransformerBlock",  # U-Nets
    "JointTransformerBlock",                   # the transformer of Stable Diffusion 3
    "CLIPEncoderLayer",
})
"""Names of the block classes of diffusers and transformers that are checkpointed.

Their own switch, `gradient_checkpointing`, leaves out some blocks of a U-Net, and does nothing in
transformers unless the network is in training mode, where dropout is on.
"""


def recompute(network: nn.Module) -> nn.Module:
    """Checkpoints the blocks of a network, in place, and returns it. Gradients stay the same.

    Layers outside of blocks whose weights are decoded on use are checkpointed too, or autograd
    would keep the decoded weights. Pre-forward hooks inside of blocks are called again in the
    backward pass.

    Source:
        Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    if type(network).__name__ in _BLOCKS or parametrize.is_parametrized(network):
        network.forward = partial(
            checkpoint, network.forward, use_reentrant=False, preserve_rng_state=False)
        return network
    for child in network.children():
        recompute(child)
    return network
