"""The names under which a LoRA may change a layer: diffusers', and those of the first code.

The first code numbers the blocks of a U-Net in a row; diffusers groups them by resolution. How many
there are of each is inferred from the checkpoint that is changed. The first code of Stable
Diffusion 3 has query, key and value in one layer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection

from sdbuild.checkpoints import mmdit
from sdbuild.checkpoints.ldm import RESNET, UNET_OUTER
from sdbuild.checkpoints.loras.key_names import flattened

_BLOCK = re.compile(r"(down|up)_blocks\.(\d{1,4})\.(resnets|attentions|downsamplers|upsamplers)"
                    r"\.(\d{1,4})(?:\.(.+))?")
_JOINT = re.compile(r"transformer_blocks\.(\d{1,4})\.")
_OUTER = {new: old for old, new in UNET_OUTER.items()}
_RESNET = {new: old for old, new in RESNET.items()}


def layers(weights: Collection[str]) -> dict[str, list[str]]:
    """Returns the layers of a network by each flat name, `down_blocks_0_resnets_0_conv1` for
    instance.

    Args:
        weights: the names of its tensors, by diffusers.
    """
    bases = {base for name in weights
             for base, dot, kind in (name.rpartition("."),) if dot and kind in ("weight", "bias")}
    starts = _starts(bases)
    found: dict[str, list[str]] = defaultdict(list)
    for base in sorted(bases):
        for name in {flattened(base), flattened(_first_name(base, starts))}:
            found[name].append(base)
    return dict(found)


def homes(weights: Collection[str]) -> dict[str, list[mmdit.Home]]:
    """Returns where the layers of the first code of Stable Diffusion 3 are, by each flat name;
    empty for other networks.

    Args:
        weights: the names of its tensors, by diffusers.
    """
    blocks = {int(found[1]) for name in weights if (found := _JOINT.match(name))}
    return {flattened(layer): mmdit.homes(layer, max(blocks))
            for layer in mmdit.first_layers(blocks)} if blocks else {}


_Starts = dict[tuple[str, int], tuple[int, int, bool]]
"""By side and level: the first block's number in a row, the number of blocks, and whether they
have attentions."""


def _starts(bases: Collection[str]) -> _Starts:
    parts = defaultdict(set)
    for base in bases:
        if block := _BLOCK.fullmatch(base):
            parts[block[1], int(block[2])].add((block[3], int(block[4])))
    found: _Starts = {}
    at = {"down": 1, "up": 0}
    for (side, level), inner in sorted(parts.items()):
        count = sum(kind == "resnets" for kind, _ in inner)
        found[side, level] = (at[side], count, any(kind == "attentions" for kind, _ in inner))
        at[side] += count + any(kind == "downsamplers" for kind, _ in inner)
    return found


def _first_name(base: str, starts: _Starts) -> str:
    """Returns the name of a layer in the original code; an unknown name stays as it is."""
    block = _BLOCK.fullmatch(base)
    if block is None:
        for new, old in _OUTER.items():
            if base == new:
                return old
            if base.startswith(f"{new}."):
                rest = base.removeprefix(f"{new}.")
                return f"{old}.{_RESNET.get(rest, rest) if 'resnets' in new else rest}"
        return base
    side, kind, number, rest = block[1], block[3], int(block[4]), block[5]
    start, count, has_attentions = starts[side, int(block[2])]
    row = "input_blocks" if side == "down" else "output_blocks"
    if kind == "resnets":
        return f"{row}.{start + number}.0.{_RESNET.get(rest, rest)}"
    if kind == "attentions":
        return f"{row}.{start + number}.1" + (f".{rest}" if rest else "")
    if kind == "downsamplers":
        return f"{row}.{start + count}.0.op"
    return f"{row}.{start + count - 1}.{1 + has_attentions}.conv"
