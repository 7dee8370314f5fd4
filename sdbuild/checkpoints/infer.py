"""Configs inferred from the shapes of tensors, for files that bring none. Names are diffusers'."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.defaults import DEFAULTS, SCALES
from sdbuild.checkpoints.networks import NO_MORE

Shapes = Mapping[str, tuple[int, ...]]

_CONFIG_HINT = (
    "config=FOLDER reads what the file does not say from a folder in diffusers' layout"
)
_IN_CHANNELS = {5: "for depth to image", 7: "an upscaler", 8: "InstructPix2Pix"}
FIRST, SECOND = "Stable Diffusion 1", "Stable Diffusion 2"
THIRD = "Stable Diffusion 3"
XL, REFINER = "Stable Diffusion XL", "Stable Diffusion XL's refiner"
_MODELS = {768: FIRST, 1024: SECOND, 2048: XL, 1280: REFINER}
"""The models, by the width of the prompts that their U-Nets take."""

_EXPECTED = ", ".join(f"{width} ({model})" for width, model in _MODELS.items())
_SCALE = DEFAULTS["AutoencoderKL"]["scaling_factor"]
_SCALES = {XL: SCALES["sdxl"], REFINER: SCALES["sdxl-refiner"], THIRD: SCALES["sd3"]}
"""Scaling factors of the models that do not use `_SCALE`."""

_XL_TIME_WIDTH = 256
"""Of each number about the picture. Source: Stability-AI/generative-models, `sd_xl_base.yaml`."""

_OPEN_CLIP_LAYERS = 24
_LAYERS = "text_model.encoder.layers"
_TOKENS = "text_model.embeddings.token_embedding.weight"
_CLIP_HEAD = 64
_GROUPS = 32


def unet(where: str, shapes: Shapes) -> dict[str, Any]:
    """Returns the config of Stable Diffusion's U-Net.

    The number of heads shows in no shape: 8 in Stable Diffusion 1, whose prompts are 768 wide,
    and one for 64 channels in the later ones.

    Raises:
        SourceError: it is of another model, or its heads cannot be inferred.
    """
    in_channels = shape(where, shapes, "conv_in.weight")[1]
    if in_channels not in (4, 9):  # 9 for inpainting
        kind = _IN_CHANNELS.get(in_channels, "of another model")
        raise SourceError(
            f"{where}: its U-Net takes {in_channels} channels, so it is {kind}, expected 4 or 9",
            hint="a checkpoint for text to image or inpainting is needed",
        )
    downs, ups = numbers(shapes, "down_blocks"), numbers(shapes, "up_blocks")
    if len(downs) != len(ups):
        raise _unlike(where, f"some of its {len(downs)} up_blocks and as many down_blocks")
    middle = "mid_block.attentions.0.proj_in.weight"
    found = {
        "_class_name": "UNet2DConditionModel",
        **_half(where, shapes),
        "out_channels": shape(where, shapes, "conv_out.weight")[0],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle in shapes else None,
        "up_block_types": [
            "CrossAttnUpBlock2D" if numbers(shapes, f"up_blocks.{i}.attentions")
            else "UpBlock2D" for i in ups
        ],
    }
    guidance = "time_embedding.cond_proj.weight"
    if guidance in shapes:
        found["time_cond_proj_dim"] = shape(where, shapes, guidance)[1]
    return found


def controlnet(where: str, shapes: Shapes) -> dict[str, Any]:
    """Returns the config of a ControlNet: half a U-Net, and a network for its picture.

    Raises:
        SourceError: it is of another model, or its heads cannot be inferred.
    """
    picture = "controlnet_cond_embedding"
    first = shape(where, shapes, f"{picture}.conv_in.weight")
    wider = [shape(where, shapes, f"{picture}.blocks.{i}.weight")[0]
             for i in numbers(shapes, f"{picture}.blocks") if i % 2]
    middle = "mid_block.attentions.0.proj_in.weight"
    if not any(".attn2.to_k." in name for name in shapes):
        raise SourceError(
            f"{where}: its ControlNet has no attentions, as the small ones of XL: how wide its "
            "prompts are cannot be inferred",
            hint="controlnet=FOLDER reads it from a folder with its config.json")
    return {
        "_class_name": "ControlNetModel",
        **_half(where, shapes),
        "conditioning_channels": first[1],
        "conditioning_embedding_out_channels": [first[0], *wider],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle in shapes else "UNetMidBlock2D",
    }


def _half(where: str, shapes: Shapes) -> dict[str, Any]:
    """Returns the fields of a config that the first half of a U-Net shows; so does a ControlNet."""
    downs = numbers(shapes, "down_blocks")
    channels = [shape(where, shapes, f"down_blocks.{i}.resnets.0.conv1.weight")[0]
                for i in downs or [0]]
    _expect_groups(where, channels)
    width = prompt_width(where, "unet", shapes)
    projection = _first(where, shapes, r".*\.attentions\.\d+\.proj_in\.weight")
    layers = [len(numbers(shapes, f"down_blocks.{i}.resnets")) for i in downs]
    return {
        "in_channels": shape(where, shapes, "conv_in.weight")[1],
        "block_out_channels": channels,
        "layers_per_block": _one(layers),
        "down_block_types": [
            "CrossAttnDownBlock2D" if numbers(shapes, f"down_blocks.{i}.attentions")
            else "DownBlock2D" for i in downs
        ],
        "cross_attention_dim": width,
        "attention_head_dim": _heads(where, width, channels),
        "use_linear_projection": len(shapes[projection]) == 2,
        "transformer_layers_per_block": _depths(where, shapes, downs),
        **_condition(where, shapes, width),
    }


def _depths(where: str, shapes: Shapes, downs: list[int]) -> int | list[int]:
    """Returns the number of transformer blocks of each level's attentions.

    One without attentions has what all others have, or 1.

    Raises:
        SourceError: the attentions of a level differ, as in distilled U-Nets.
    """
    top = downs[-1]
    found: dict[int, set[int]] = {
        level: {len(numbers(shapes, f"{block}.attentions.{i}.transformer_blocks"))
                for block in (f"down_blocks.{level}", f"up_blocks.{top - level}",
                              *(["mid_block"] if level == top else []))
                for i in numbers(shapes, f"{block}.attentions")}
        for level in downs
    }
    if uneven := [level for level, depths in found.items() if len(depths) > 1]:
        raise SourceError(
            f"{where}: the attentions of level {uneven[0]} have {sorted(found[uneven[0]])} "
            "transformer blocks, expected one number: its U-Net is distilled, as SSD-1B is",
            hint=_CONFIG_HINT,
        )
    known = {depth for depths in found.values() for depth in depths}
    usual = known.pop() if len(known) == 1 else 1
    return _one([next(iter(depths), usual) for depths in found.values()])


def _one(values: list[int]) -> int | list[int]:
    """Numbers that are all the same as one."""
    return values[0] if len(set(values)) == 1 else values


def _condition(where: str, shapes: Shapes, width: int) -> dict[str, Any]:
    """Returns the other conditions of a U-Net than the prompt: in XL, an embedding of it and
    numbers of the picture."""
    name = "add_embedding.linear_1.weight"
    if name not in shapes:
        return {}
    if _MODELS.get(width) not in (XL, REFINER):
        raise SourceError(f"{where}: its U-Net needs more than a prompt, as unCLIP does, expected "
                          "Stable Diffusion 1, 2 or XL", hint=NO_MORE)
    return {"addition_embed_type": "text_time", "addition_time_embed_dim": _XL_TIME_WIDTH,
            "projection_class_embeddings_input_dim": shape(where, shapes, name)[1]}


def _heads(where: str, width: int, channels: list[int]) -> Any:
    """Returns the heads of each block: diffusers calls their number `attention_head_dim`."""
    model = _MODELS.get(width)
    if model == FIRST:
        return 8
    if model is not None and all(c % 64 == 0 for c in channels):
        return [c // 64 for c in channels]
    found = f"takes prompts {width} wide, expected {_EXPECTED}" if model is None else (
        f"has {channels} channels, expected multiples of 64")
    raise SourceError(f"{where}: its U-Net {found}: the number of heads cannot be inferred",
                      hint=_CONFIG_HINT)


def _expect_groups(where: str, channels: list[int]) -> None:
    """Refuses networks that cannot be normalized in 32 groups, as all known ones are."""
    if any(count % _GROUPS for count in channels):
        raise SourceError(
            f"{where}: its network has {channels} channels, expected multiples of {_GROUPS}: the "
            "number of groups of its normalizations cannot be inferred",
            hint=_CONFIG_HINT,
        )


def vae(where: str, shapes: Shapes, model: str = "") -> dict[str, Any]:
    """Returns the config of the autoencoder of a model, which is not known of one alone: then the
    config does not say how latents are scaled."""
    latents = shape(where, shapes, "decoder.conv_in.weight")[1]
    if latents not in (4, 16):  # 16 of Stable Diffusion 3
        raise SourceError(
            f"{where}: its autoencoder has latents of {latents} channels, expected 4 or 16",
            hint="it belongs to another model",
        )
    levels = numbers(shapes, "encoder.down_blocks")
    channels = [
        shape(where, shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.weight")[0] for i in levels
    ]
    _expect_groups(where, channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shape(where, shapes, "encoder.conv_in.weight")[1],
        "out_channels": shape(where, shapes, "decoder.conv_out.weight")[0],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "latent_channels": latents,
        "layers_per_block": len(numbers(shapes, "encoder.down_blocks.0.resnets")),
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        **({"scaling_factor": _SCALES.get(model, _SCALE)} if model else {}),
    }


def prompt_width(where: str, part: str, shapes: Shapes) -> int:
    """Returns the width of the prompts that a U-Net reads or a text encoder returns.

    Raises:
        SourceError: it lacks the tensor that tells.
    """
    if part == "unet":
        return shape(where, shapes, _first(where, shapes, r".*\.attn2\.to_k\.weight"))[1]
    return shape(where, shapes, _TOKENS)[1]


def model(where: str, widths: Mapping[str, int]) -> str:
    """Returns the model whose U-Net takes, and whose text encoders together give, prompts so wide.

    Raises:
        SourceError: it is none, or the parts are of two models.
    """
    given = sum(width for part, width in widths.items() if part != "unet")
    taken = widths.get("unet", given)
    if given not in (0, taken):
        raise SourceError(
            f"{where}: its text encoder gives prompts {given} wide, and its U-Net takes {taken}: "
            "they are of two models, or one text encoder is missing",
            hint="components=unet,vae_decoder leaves the text encoder out",
        )
    if taken not in _MODELS:
        raise SourceError(
            f"{where}: its prompts are {taken} wide, expected {_EXPECTED}", hint=_CONFIG_HINT)
    return _MODELS[taken]


def used_layers(where: str, shapes: Shapes) -> int:
    """Returns the number of layers of a text encoder that are used.

    Stable Diffusion 2 takes what comes out of the last layer but one of OpenCLIP's 24. Files have
    24, or 23 if the last was left out.

    Raises:
        SourceError: one of OpenCLIP's width has another number.
    """
    count = len(numbers(shapes, _LAYERS))
    if _MODELS.get(prompt_width(where, "text_encoder", shapes)) != SECOND:
        return count
    if count not in (_OPEN_CLIP_LAYERS, _OPEN_CLIP_LAYERS - 1):
        raise SourceError(
            f"{where}: its text encoder has {count} layers, expected {_OPEN_CLIP_LAYERS}, or "
            f"{_OPEN_CLIP_LAYERS - 1} without the last one: whether the last is used cannot be "
            "inferred", hint=_CONFIG_HINT,
        )
    return _OPEN_CLIP_LAYERS - 1


def text_encoder(where: str, shapes: Shapes, model: str) -> dict[str, Any]:
    """Returns the config of CLIP's text encoder, whose heads are 64 wide in each of its sizes.

    Stable Diffusion 2 has OpenCLIP's, which has another activation.
    """
    vocabulary, width = shape(where, shapes, _TOKENS)
    return {
        "architectures": ["CLIPTextModel"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "hidden_act": "gelu" if model == SECOND else "quick_gelu",
        "intermediate_size": shape(where, shapes, f"{_LAYERS}.0.mlp.fc1.weight")[0],
        "max_position_embeddings":
            shape(where, shapes, "text_model.embeddings.position_embedding.weight")[0],
        "num_attention_heads": max(1, width // _CLIP_HEAD),
        "num_hidden_layers": len(numbers(shapes, _LAYERS)),
    }


def text_encoder_2(where: str, shapes: Shapes, model: str) -> dict[str, Any]:
    """Returns the config of XL's second text encoder, OpenCLIP's largest with all layers.

    Raises:
        SourceError: its projection is missing.
    """
    return text_encoder(where, shapes, model) | {
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_act": "gelu",
        "projection_dim": shape(where, shapes, "text_projection.weight")[0],
    }


def numbers(names: Collection[str], prefix: str) -> list[int]:
    """Returns the numbers that follow the prefix, in order."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,4}})\.")
    return sorted({int(found[1]) for name in names if (found := pattern.match(name))})


def _first(where: str, shapes: Shapes, pattern: str) -> str:
    for name in sorted(shapes):
        if re.fullmatch(pattern, name):
            return name
    raise _unlike(where, pattern.replace("\\", "").replace(".*.", "").replace("d+", "N"))


def shape(where: str, shapes: Shapes, name: str) -> tuple[int, ...]:
    """Returns the shape of a matrix, or of more dimensions.

    Raises:
        SourceError: there is no such tensor.
    """
    found = shapes.get(name, ())
    if len(found) < 2:
        raise _unlike(where, name)
    return found


def _unlike(where: str, name: str) -> SourceError:
    return SourceError(
        f"{where}: it lacks {name} (by diffusers' name), expected Stable Diffusion 1, 2 or XL",
        hint="the file may be a part of a checkpoint, or of another model",
    )
