"""Configs inferred from the shapes of tensors, for files that bring none. Names are diffusers'."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from sdbuild.base.errors import SourceError

Shapes = Mapping[str, tuple[int, ...]]

_CONFIG_HINT = (
    "config=FOLDER reads what the file does not say from a folder in diffusers' layout"
)
_IN_CHANNELS = {
    5: "for depth to image", 7: "an upscaler", 8: "InstructPix2Pix", 9: "for inpainting",
}
_GENERATIONS = {768: 1, 1024: 2}
"""The generations of Stable Diffusion, by the width of their prompts."""

_OPEN_CLIP_LAYERS = 24
_LAYERS = "text_model.encoder.layers"
_TOKENS = "text_model.embeddings.token_embedding.weight"
_CLIP_HEAD = 64
_GROUPS = 32


def unet(where: str, shapes: Shapes) -> dict[str, Any]:
    """The config of Stable Diffusion's U-Net.

    The number of heads shows in no shape: 8 in Stable Diffusion 1, whose prompts are 768 wide,
    and one for 64 channels in 2, whose prompts are 1024 wide.

    Raises:
        SourceError: it is of another model, or its heads cannot be told.
    """
    in_channels = _shape(where, shapes, "conv_in.weight")[1]
    if in_channels != 4:
        kind = _IN_CHANNELS.get(in_channels, "of another model")
        raise SourceError(
            f"{where}: its U-Net takes {in_channels} channels, so it is {kind}, expected 4",
            hint="a checkpoint for text to image is needed",
        )
    downs, ups = _numbers(shapes, "down_blocks"), _numbers(shapes, "up_blocks")
    channels = [_shape(where, shapes, f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in downs]
    _expect_groups(where, channels)
    if len(downs) != len(ups):
        raise _unlike(where, f"some of its {len(downs)} up_blocks and as many down_blocks")
    width = prompt_width(where, "unet", shapes)
    projection = _first(where, shapes, r".*\.attentions\.\d+\.proj_in\.weight")
    layers = [len(_numbers(shapes, f"down_blocks.{i}.resnets")) for i in downs]
    middle = "mid_block.attentions.0.proj_in.weight"
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": in_channels,
        "out_channels": _shape(where, shapes, "conv_out.weight")[0],
        "block_out_channels": channels,
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "down_block_types": [
            "CrossAttnDownBlock2D" if _numbers(shapes, f"down_blocks.{i}.attentions")
            else "DownBlock2D" for i in downs
        ],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle in shapes else None,
        "up_block_types": [
            "CrossAttnUpBlock2D" if _numbers(shapes, f"up_blocks.{i}.attentions")
            else "UpBlock2D" for i in ups
        ],
        "cross_attention_dim": width,
        "attention_head_dim": _heads(where, width, channels),
        "use_linear_projection": len(shapes[projection]) == 2,
    }


def _heads(where: str, width: int, channels: list[int]) -> Any:
    """The heads of each block: diffusers calls their number `attention_head_dim`."""
    if width == 768:
        return 8
    if width == 1024 and all(c % 64 == 0 for c in channels):
        return [c // 64 for c in channels]
    raise SourceError(
        f"{where}: its U-Net takes prompts {width} wide, expected 768 (Stable Diffusion 1) or "
        "1024 (2): the number of heads cannot be inferred",
        hint=_CONFIG_HINT,
    )


def _expect_groups(where: str, channels: list[int]) -> None:
    """Refuses networks that cannot be normalized in 32 groups, as all known ones are."""
    if any(count % _GROUPS for count in channels):
        raise SourceError(
            f"{where}: its network has {channels} channels, expected multiples of {_GROUPS}: the "
            "number of groups of its normalizations cannot be inferred",
            hint=_CONFIG_HINT,
        )


def vae(where: str, shapes: Shapes) -> dict[str, Any]:
    """The config of Stable Diffusion's autoencoder."""
    latents = _shape(where, shapes, "decoder.conv_in.weight")[1]
    if latents != 4:
        raise SourceError(
            f"{where}: its autoencoder has latents of {latents} channels, expected 4",
            hint="it belongs to another model, such as Stable Diffusion 3 or FLUX",
        )
    levels = _numbers(shapes, "encoder.down_blocks")
    channels = [
        _shape(where, shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.weight")[0] for i in levels
    ]
    _expect_groups(where, channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(where, shapes, "encoder.conv_in.weight")[1],
        "out_channels": _shape(where, shapes, "decoder.conv_out.weight")[0],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "latent_channels": latents,
        "layers_per_block": len(_numbers(shapes, "encoder.down_blocks.0.resnets")),
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def prompt_width(where: str, part: str, shapes: Shapes) -> int:
    """How wide the prompts are that a U-Net takes, or that a text encoder gives.

    Raises:
        SourceError: it lacks the tensor that tells.
    """
    if part == "unet":
        return _shape(where, shapes, _first(where, shapes, r".*\.attn2\.to_k\.weight"))[1]
    return _shape(where, shapes, _TOKENS)[1]


def generation(where: str, widths: Mapping[str, int]) -> int:
    """The generation of Stable Diffusion, 1 or 2, whose prompts are so wide in each part.

    Raises:
        SourceError: it is neither's, or the parts are of two models.
    """
    if len(set(widths.values())) > 1:
        raise SourceError(
            f"{where}: its text encoder gives prompts {widths['text_encoder']} wide, and its U-Net "
            f"takes {widths['unet']}: they are of two models",
            hint="components=unet,vae_decoder leaves the text encoder out",
        )
    found = next((_GENERATIONS.get(width) for width in widths.values()), None)
    if found is None:
        raise SourceError(
            f"{where}: its prompts are {', '.join(map(str, widths.values()))} wide, expected 768 "
            "(Stable Diffusion 1) or 1024 (2)",
            hint=_CONFIG_HINT,
        )
    return found


def used_layers(where: str, shapes: Shapes) -> int:
    """How many layers of a text encoder are used.

    Stable Diffusion 2 takes what comes out of the last layer but one of OpenCLIP's 24. Files have
    24, or 23 if the last was left out.

    Raises:
        SourceError: one of OpenCLIP's width has another number.
    """
    count = len(_numbers(shapes, _LAYERS))
    if _GENERATIONS.get(prompt_width(where, "text_encoder", shapes)) != 2:
        return count
    if count not in (_OPEN_CLIP_LAYERS, _OPEN_CLIP_LAYERS - 1):
        raise SourceError(
            f"{where}: its text encoder has {count} layers, expected {_OPEN_CLIP_LAYERS}, or "
            f"{_OPEN_CLIP_LAYERS - 1} without the last one: whether the last is used cannot be "
            "inferred", hint=_CONFIG_HINT,
        )
    return _OPEN_CLIP_LAYERS - 1


def text_encoder(where: str, shapes: Shapes, generation: int) -> dict[str, Any]:
    """The config of CLIP's text encoder, whose heads are 64 wide in each of its sizes.

    Stable Diffusion 2 has OpenCLIP's, which has another activation.
    """
    vocabulary, width = _shape(where, shapes, _TOKENS)
    return {
        "architectures": ["CLIPTextModel"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "hidden_act": "gelu" if generation == 2 else "quick_gelu",
        "intermediate_size": _shape(where, shapes, f"{_LAYERS}.0.mlp.fc1.weight")[0],
        "max_position_embeddings":
            _shape(where, shapes, "text_model.embeddings.position_embedding.weight")[0],
        "num_attention_heads": max(1, width // _CLIP_HEAD),
        "num_hidden_layers": len(_numbers(shapes, _LAYERS)),
    }


def _numbers(names: Collection[str], prefix: str) -> list[int]:
    """The numbers that follow the prefix, in order."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return sorted({int(found[1]) for name in names if (found := pattern.match(name))})


def _first(where: str, shapes: Shapes, pattern: str) -> str:
    for name in sorted(shapes):
        if re.fullmatch(pattern, name):
            return name
    raise _unlike(where, pattern.replace("\\", "").replace(".*.", "").replace("d+", "N"))


def _shape(where: str, shapes: Shapes, name: str) -> tuple[int, ...]:
    found = shapes.get(name, ())
    if len(found) < 2:
        raise _unlike(where, name)
    return found


def _unlike(where: str, name: str) -> SourceError:
    return SourceError(
        f"{where}: it lacks {name} (by diffusers' name), expected Stable Diffusion 1 or 2",
        hint="the file may be a part of a checkpoint, or of another model",
    )
