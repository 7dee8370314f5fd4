"""Stable Diffusion 3 in single files: the names of its first code, and configs by shapes.

Source:
    Stability-AI/sd3.5 `mmditx.py`; diffusers `loaders/single_file_utils.py`,
    `convert_sd3_transformer_checkpoint_to_diffusers` (both MIT or Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import infer, ldm

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

MARK = "joint_blocks.0.x_block.attn.qkv.weight"
"""A tensor that every file has in its first names, and `OWN_MARK` in diffusers'."""
OWN_MARK = "transformer_blocks.0.attn.add_q_proj.weight"

_OUTER = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_INNER = {
    "x_block": {
        "attn.ln_q": "attn.norm_q", "attn.ln_k": "attn.norm_k", "attn.proj": "attn.to_out.0",
        "attn2.ln_q": "attn2.norm_q", "attn2.ln_k": "attn2.norm_k", "attn2.proj": "attn2.to_out.0",
        "adaLN_modulation.1": "norm1.linear", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2",
    },
    "context_block": {
        "attn.ln_q": "attn.norm_added_q", "attn.ln_k": "attn.norm_added_k",
        "attn.proj": "attn.to_add_out", "adaLN_modulation.1": "norm1_context.linear",
        "mlp.fc1": "ff_context.net.0.proj", "mlp.fc2": "ff_context.net.2",
    },
}
_QKV = {"x_block": "{}.to_{}", "context_block": "{}.add_{}_proj"}
_LAYER = re.compile(r"joint_blocks\.(\d{1,4})\.(x_block|context_block)\.(.+)")
_HEAD = 64
"""Numbers of a head where no norm of queries shows it: those of all published ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The layer of diffusers' network that some rows of a layer of the first code belong to.

    The rows are in `of` parts of one size, of which it has `parts`, in its own order.
    """

    layer: str
    parts: tuple[int, ...] = (0,)
    of: int = 1


_SWAPPED = {"parts": (1, 0), "of": 2}
"""Diffusers has the scale first where a norm only scales and shifts what is not gated."""


def homes(layer: str, last: int) -> list[Home]:
    """Returns where the rows of a layer of the first code are in diffusers' network; an unknown
    layer stays as it is.

    Query, key and value lie in one tensor, one after the other.

    Args:
        last: the number of the last block.
    """
    block = _LAYER.fullmatch(layer)
    if block is None:
        outer: dict[str, Any] = _SWAPPED if layer == "final_layer.adaLN_modulation.1" else {}
        return [Home(layer=_OUTER.get(layer, layer), **outer)]
    number, side, inner = block[1], block[2], block[3]
    prefix = f"transformer_blocks.{number}"
    if inner.endswith(".qkv"):
        names = (_QKV[side].format(inner.removesuffix(".qkv"), letter) for letter in "qkv")
        return [Home(layer=f"{prefix}.{name}", parts=(third,), of=3)
                for third, name in enumerate(names)]
    is_last = side == "context_block" and int(number) == last and inner.startswith("adaLN")
    swapped: dict[str, Any] = _SWAPPED if is_last else {}
    return [Home(layer=f"{prefix}.{_INNER[side].get(inner, inner)}", **swapped)]


def first_layers(blocks: Iterable[int]) -> Iterator[str]:
    """Yields the layers of the first code that hold matrices, of a network with these blocks."""
    yield from (layer for layer in _OUTER if layer != "pos_embed")
    for number in blocks:
        for side, inner in _INNER.items():
            kept = (name for name in inner if ".ln_" not in name)
            for name in (*kept, "attn.qkv", "attn2.qkv"):
                yield f"joint_blocks.{number}.{side}.{name}"


def named(found: Mapping[str, Tensor]) -> ldm.Tensors:
    """Returns a transformer's tensors, by diffusers' names."""
    last = max((int(m[1]) for name in found if (m := _LAYER.match(name))), default=0)
    return ldm.renamed({new: made for name, tensor in found.items()
                        for new, made in _named(name, tensor, last)})


def _named(name: str, tensor: Tensor, last: int) -> Iterator[tuple[str, Tensor]]:
    from sdbuild.safetensors.joined import joined

    if name == "pos_embed":
        yield _OUTER[name], tensor
        return
    layer, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        yield name, tensor
        return
    for home in homes(layer, last):
        if home.of == 1:
            yield f"{home.layer}.{kind}", tensor
            continue
        pieces = [tensor.divided(home.of)[part] for part in home.parts]
        yield f"{home.layer}.{kind}", joined(pieces) if len(pieces) > 1 else pieces[0]


def config(where: str, shapes: infer.Shapes) -> dict[str, Any]:
    """Returns the config of a transformer, from its tensors' shapes by diffusers' names.

    Raises:
        SourceError: it lacks a tensor that tells, or is of no known kind.
    """
    channels, latents = infer.shape(where, shapes, "pos_embed.proj.weight")[:2]
    blocks = infer.numbers(shapes, "transformer_blocks")
    norm = shapes.get("transformer_blocks.0.attn.norm_q.weight")
    head = norm[0] if norm else _HEAD
    table = shapes.get("pos_embed.pos_embed", ())
    if len(table) != 3 or isqrt(table[1]) ** 2 != table[1] or channels % head:
        raise SourceError(f"{where}: its transformer has {channels} channels and positions of the "
                          f"shape {list(table)}, expected Stable Diffusion 3 or 3.5",
                          hint="it may be of another model")
    width, tokens = infer.shape(where, shapes, "context_embedder.weight")
    pooled = infer.shape(where, shapes, "time_text_embed.text_embedder.linear_1.weight")[1]
    return {
        "_class_name": "SD3Transformer2DModel",
        "attention_head_dim": head,
        "caption_projection_dim": width,
        "dual_attention_layers": [number for number in blocks if
                                  f"transformer_blocks.{number}.attn2.to_q.weight" in shapes],
        "in_channels": latents,
        "joint_attention_dim": tokens,
        "num_attention_heads": channels // head,
        "num_layers": len(blocks),
        "out_channels": latents,
        "patch_size": 2,
        "pooled_projection_dim": pooled,
        "pos_embed_max_size": isqrt(table[1]),
        "qk_norm": "rms_norm" if norm else None,
    }


def text_encoder(where: str, shapes: infer.Shapes) -> dict[str, Any]:
    """Returns the config of the first CLIP; some files have it without its projection, which is
    the identity then."""
    found = infer.text_encoder(where, shapes, infer.THIRD)
    if "text_projection.weight" not in shapes:
        return found
    return found | {"architectures": ["CLIPTextModelWithProjection"],
                    "projection_dim": infer.shape(where, shapes, "text_projection.weight")[0]}


def text_encoder_3(where: str, shapes: infer.Shapes) -> dict[str, Any]:
    """Returns the config of T5's encoder, whose heads are 64 wide in each published size."""
    words, width = infer.shape(where, shapes, "encoder.embed_tokens.weight")
    layer = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = infer.shape(where, shapes, f"{layer}.relative_attention_bias.weight")
    dense = "encoder.block.0.layer.1.DenseReluDense"
    gated = f"{dense}.wi_0.weight"
    return {
        "architectures": ["T5EncoderModel"],
        "d_ff": infer.shape(where, shapes, gated if gated in shapes else f"{dense}.wi.weight")[0],
        "d_kv": infer.shape(where, shapes, f"{layer}.q.weight")[0] // heads,
        "d_model": width,
        "feed_forward_proj": "gated-gelu" if gated in shapes else "relu",
        "num_heads": heads,
        "num_layers": len(infer.numbers(shapes, "encoder.block")),
        "relative_attention_num_buckets": buckets,
        "vocab_size": words,
    }
