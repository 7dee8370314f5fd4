"""The names that Stable Diffusion's first code gave its tensors, and what diffusers calls them.

Civitai and A1111 keep checkpoints under those names. Each function takes the tensors of a part by
their names behind its prefix, and gives them by diffusers'. Nothing is read: a tensor that holds
several is divided by offsets. A name that the part does not know stays as it is.

Source:
    CompVis/stable-diffusion, `ldm/modules/diffusionmodules/openaimodel.py` and `model.py`;
    mlfoundations/open_clip, `transformer.py`; what diffusers names them: its networks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

Tensors = dict[str, "Tensor"]

UNET_OUTER = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
}
RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d{1,4})\.(\d{1,4})\.(.+)")
_DOWN = re.compile(r"input_blocks\.(\d{1,4})\.0\.op\.weight")
_UP = re.compile(r"output_blocks\.(\d{1,4})\.\d{1,4}\.conv\.weight")

_EMA = tuple((re.compile(pattern), template) for pattern, template in (
    (r"^(input_blocks|output_blocks)(\d+)(\d)(?=\D)", r"\1.\2.\3."),
    (r"^(middle_block|time_embed|out)(\d)(?=\D)", r"\1.\2."),
    (r"^(label_emb)(\d)(\d)(?=\D)", r"\1.\2.\3."),
    (r"(transformer_blocks|in_layers|out_layers|emb_layers|to_out)(\d+)", r"\1.\2."),
    (r"(skip_connection|attn[12]|to_[qkv]|proj_in|proj_out|norm[123]?|op|conv)(?=weight|bias|to_)",
     r"\1."),
    (r"ffnet(\d)(proj)?", r"ff.net.\1.\2."),
    (r"\.\.+", "."),
))
"""Patterns that put the dots back into names of EMA weights, applied in this order.
Source: CompVis/stable-diffusion, `ldm/modules/ema.py`, which takes the dots out."""

_HINT = re.compile(r"input_hint_block\.(\d{1,4})\.(.+)")
_ZERO = re.compile(r"zero_convs\.(\d{1,4})\.0\.(.+)")

_VAE = tuple((re.compile(pattern), name) for pattern, name in (
    (r"(encoder|decoder)\.norm_out\.(.+)", r"\1.conv_norm_out.\2"),
    (r"(encoder|decoder)\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.norm\.(.+)", r"\1.mid_block.attentions.0.group_norm.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.proj_out\.(.+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.(.+)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (r"encoder\.down\.(\d+)\.block\.(.+)", r"encoder.down_blocks.\1.resnets.\2"),
    (r"encoder\.down\.(\d+)\.downsample\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.\2"),
    (r"decoder\.up\.(\d+)\.block\.(.+)", r"decoder.up_blocks.\1.resnets.\2"),
    (r"decoder\.up\.(\d+)\.upsample\.(.+)", r"decoder.up_blocks.\1.upsamplers.0.\2"),
))
_LEVEL = re.compile(r"decoder\.up\.(\d{1,4})\.")

_OPEN_CLIP_OUTER = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight", "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}
_PROJECTION = "text_projection"
_LAYER = re.compile(r"(?:text_model\.)?encoder\.layers\.(\d{1,4})\.")
_OPEN_CLIP_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,4})\.(.+)")


def _unet_namer(names: Iterable[str]) -> Callable[[str], str]:
    """Returns the function that renames a U-Net's tensors as diffusers names them.

    Its blocks are numbered in a row; diffusers groups them by resolution, where the picture's
    size changes.
    """
    names = list(names)
    downs = sorted(int(found[1]) for n in names if (found := _DOWN.fullmatch(n)))
    ups = sorted(int(found[1]) for n in names if (found := _UP.fullmatch(n)))

    def named(name: str) -> str:
        outer, kind, rest = _split(name, UNET_OUTER)
        if outer:
            return f"{outer}.{_resnet(rest)}" if "resnets" in outer else f"{outer}.{rest}"
        found = _BLOCK.fullmatch(name)
        if not found:
            return name
        kind, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
        changes = downs if kind == "input" else ups
        level = bisect_left(changes, number)
        first = changes[level - 1] + 1 if level else (1 if kind == "input" else 0)
        block = f"{'down' if kind == 'input' else 'up'}_blocks.{level}"
        if rest.startswith("op."):
            return f"{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        if place and rest.startswith("conv."):
            return f"{block}.upsamplers.0.{rest}"
        if place:
            return f"{block}.attentions.{number - first}.{rest}"
        return f"{block}.resnets.{number - first}.{_resnet(rest)}"

    return named


def unet(found: Mapping[str, Tensor]) -> Tensors:
    """Returns a U-Net's tensors, by diffusers' names."""
    named = _unet_namer(found)
    return renamed({named(name): tensor for name, tensor in found.items()})


def controlnet(found: Mapping[str, Tensor]) -> Tensors:
    """Returns a ControlNet's tensors, by diffusers' names: half a U-Net, a convolution of zeros for
    each residual, and a network for the picture, whose layers are every second module."""
    named = _unet_namer(found)
    last = max((int(hint[1]) for name in found if (hint := _HINT.fullmatch(name))), default=0)

    def name_of(name: str) -> str:
        if hint := _HINT.fullmatch(name):
            number = int(hint[1])
            inner = {0: "conv_in", last: "conv_out"}.get(number, f"blocks.{number // 2 - 1}")
            return f"controlnet_cond_embedding.{inner}.{hint[2]}"
        if zero := _ZERO.fullmatch(name):
            return f"controlnet_down_blocks.{zero[1]}.{zero[2]}"
        if name.startswith("middle_block_out.0."):
            return name.replace("middle_block_out.0.", "controlnet_mid_block.")
        return named(name)

    return renamed({name_of(name): tensor for name, tensor in found.items()})


def vae(found: Mapping[str, Tensor]) -> Tensors:
    """Returns an autoencoder's tensors, by diffusers' names; its decoder counts levels from
    below."""
    top = max((int(m[1]) for name in found if (m := _LEVEL.match(name))), default=0)

    def named(name: str) -> str:
        name = _LEVEL.sub(lambda m: f"decoder.up.{top - int(m[1])}.", name)
        for pattern, template in _VAE:
            if match := pattern.fullmatch(name):
                return match.expand(template).replace("nin_shortcut", "conv_shortcut")
        return name

    return renamed({named(name): tensor for name, tensor in found.items()})


def ema_unet(found: Mapping[str, Tensor]) -> Tensors:
    """Returns a U-Net's averaged tensors, whose names have lost their dots, by diffusers' names."""
    return unet({_dotted(name): tensor for name, tensor in found.items()})


def _dotted(name: str) -> str:
    """Returns the name with its dots: each part is a word of the U-Net's, or a number before
    one."""
    for pattern, template in _EMA:
        name = pattern.sub(template, name)
    return name.strip(".")


def open_clip(found: Mapping[str, Tensor]) -> Tensors:
    """OpenCLIP's text encoder as CLIP's, as diffusers has it, with each of its blocks.

    The projection is left out. Query, key and value lie in one tensor, one after the other.
    """
    made: Tensors = {}
    for name, tensor in found.items():
        block = _OPEN_CLIP_BLOCK.fullmatch(name)
        if name in _OPEN_CLIP_OUTER:
            made[f"text_model.{_OPEN_CLIP_OUTER[name]}"] = tensor
        elif block:
            layer = f"text_model.encoder.layers.{block[1]}"
            if block[2].startswith("attn.in_proj_"):
                kind = block[2].removeprefix("attn.in_proj_")
                for part, third in zip("qkv", tensor.divided(3), strict=True):
                    made[f"{layer}.self_attn.{part}_proj.{kind}"] = third
            else:
                inner, _, rest = _split(block[2], _OPEN_CLIP_LAYER)
                made[f"{layer}.{inner}.{rest}" if inner else f"{layer}.{block[2]}"] = tensor
    return renamed(made)


def projected_open_clip(found: Mapping[str, Tensor]) -> Tensors:
    """OpenCLIP's text encoder with its projection, which it keeps by inputs, as a parameter, and
    CLIP by outputs, as a linear layer; some files have it as that."""
    from sdbuild.safetensors.transposed import transposed

    made = open_clip(found)
    if _PROJECTION in found:
        made |= renamed({f"{_PROJECTION}.weight": transposed(found[_PROJECTION])})
    elif f"{_PROJECTION}.weight" in found:
        made |= renamed({f"{_PROJECTION}.weight": found[f"{_PROJECTION}.weight"]})
    return made


def first_layers(found: Mapping[str, Tensor], count: int) -> Tensors:
    """Returns a text encoder's tensors without the layers after the first `count`."""
    return {
        name: tensor for name, tensor in found.items()
        if not (layer := _LAYER.match(name)) or int(layer[1]) < count
    }


def _split(name: str, table: Mapping[str, str]) -> tuple[str, str, str]:
    """Returns the table's entry for the beginning of a name, that beginning, and the rest."""
    for old, new in table.items():
        if name.startswith(f"{old}."):
            return new, old, name.removeprefix(f"{old}.")
    return "", "", name


def _resnet(rest: str) -> str:
    new, _, tail = _split(rest, RESNET)
    return f"{new}.{tail}" if new else rest


def renamed(found: Mapping[str, Tensor]) -> Tensors:
    """Returns the tensors with the names that they are found by."""
    return {name: replace(tensor, name=name) for name, tensor in found.items()}
