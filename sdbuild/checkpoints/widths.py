"""The sides of tensors that fields of a config give, so that a config of another model is found
before any network is built from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

_FIRST, _LAST = 0, -1
_CONDITIONS = (
    (r"add_embedding\.linear_1\.weight", 1, "projection_class_embeddings_input_dim", None),
    (r"time_embedding\.cond_proj\.weight", 1, "time_cond_proj_dim", None),
)
_CLIP_TEXT = (
    (r".*\.token_embedding\.weight", 0, "vocab_size", None),
    (r".*\.token_embedding\.weight", 1, "hidden_size", None),
    (r".*\.position_embedding\.weight", 0, "max_position_embeddings", None),
    (r".*\.mlp\.fc1\.weight", 0, "intermediate_size", None),
)
_SIDES: Mapping[str, tuple[tuple[str, int, str, int | None], ...]] = {
    "UNet2DConditionModel": (
        (r"conv_in\.weight", 0, "block_out_channels", _FIRST),
        (r"conv_in\.weight", 1, "in_channels", None),
        (r"conv_out\.weight", 0, "out_channels", None),
        (r"conv_out\.weight", 1, "block_out_channels", _FIRST),
        (r".*\.attn2\.to_k\.weight", 1, "cross_attention_dim", None),
        *_CONDITIONS,
    ),
    "AutoencoderKL": (
        (r"encoder\.conv_in\.weight", 0, "block_out_channels", _FIRST),
        (r"encoder\.conv_in\.weight", 1, "in_channels", None),
        (r"decoder\.conv_in\.weight", 0, "block_out_channels", _LAST),
        (r"decoder\.conv_in\.weight", 1, "latent_channels", None),
        (r"decoder\.conv_out\.weight", 0, "out_channels", None),
    ),
    "ControlNetModel": (
        (r"conv_in\.weight", 0, "block_out_channels", _FIRST),
        (r"conv_in\.weight", 1, "in_channels", None),
        (r"controlnet_cond_embedding\.conv_in\.weight", 1, "conditioning_channels", None),
        (r".*\.attn2\.to_k\.weight", 1, "cross_attention_dim", None),
        *_CONDITIONS,
    ),
    "CLIPTextModel": _CLIP_TEXT,
    "SD3Transformer2DModel": (
        (r"pos_embed\.proj\.weight", 1, "in_channels", None),
        (r"context_embedder\.weight", 0, "caption_projection_dim", None),
        (r"context_embedder\.weight", 1, "joint_attention_dim", None),
        (r"time_text_embed\.text_embedder\.linear_1\.weight", 1, "pooled_projection_dim", None),
    ),
    "T5EncoderModel": (
        (r"encoder\.embed_tokens\.weight", 0, "vocab_size", None),
        (r"encoder\.embed_tokens\.weight", 1, "d_model", None),
        (r".*\.DenseReluDense\.wi(_0)?\.weight", 0, "d_ff", None),
    ),
    "CLIPTextModelWithProjection": (
        *_CLIP_TEXT, (r"text_projection\.weight", 0, "projection_dim", None),
    ),
}
"""By class: a tensor's name, the axis, and the field that gives it, or which of its values."""


def check_widths(part: str, architecture: Mapping[str, Any], tensors: Iterable[Tensor]) -> None:
    """Makes sure that the tensors have the sides that the config gives.

    Raises:
        SourceError: one has not; names its file, the field, and both shapes.
    """
    sides = _SIDES.get(architecture["class"], ())
    for tensor in tensors:
        for name, axis, field, which in sides:
            value = architecture["config"].get(field)
            if which is not None:
                value = value[which] if isinstance(value, list) and value else None
            if type(value) is not int or not re.fullmatch(name, tensor.name):
                continue
            if len(tensor.shape) <= axis or tensor.shape[axis] != value:
                expected = ["…"] * max(len(tensor.shape), axis + 1)
                expected[axis] = str(value)
                raise SourceError(
                    f"{tensor.file}: {tensor.name} has the shape {list(tensor.shape)}, "
                    f"expected [{', '.join(expected)}] by {field} of {part}/config.json",
                    hint="the config and the weights are of two models: use those of one",
                    part=part, tensor=tensor.name, field=field,
                )
