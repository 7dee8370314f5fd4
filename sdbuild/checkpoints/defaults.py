"""Defaults of fields that a config does not have: those of the networks' classes.

Older configs lack the fields that came after them. Filled in here, an architecture says all that
defines it, and stays what it is when a library changes a default.

Source:
    diffusers 0.42.1, `UNet2DConditionModel`, `ControlNetModel`, `SD3Transformer2DModel` and
    `AutoencoderKL`; transformers 5.23.0, `CLIPTextConfig`, `CLIPVisionConfig` and `T5Config` (both
    Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNET: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_head_dim": 8,
    "attention_type": "default",
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 1280,
    "cross_attention_norm": None,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                         "DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                       "CrossAttnUpBlock2D"],
    "use_linear_projection": False,
}
_CONTROLNET: dict[str, Any] = {
    name: _UNET[name] for name in (
        "act_fn", "addition_embed_type", "addition_embed_type_num_heads", "addition_time_embed_dim",
        "attention_head_dim", "block_out_channels", "class_embed_type", "cross_attention_dim",
        "down_block_types", "downsample_padding", "encoder_hid_dim", "encoder_hid_dim_type",
        "flip_sin_to_cos", "freq_shift", "in_channels", "layers_per_block",
        "mid_block_scale_factor", "mid_block_type", "norm_eps", "norm_num_groups",
        "num_attention_heads", "num_class_embeds", "only_cross_attention",
        "projection_class_embeddings_input_dim", "resnet_time_scale_shift",
        "transformer_layers_per_block", "use_linear_projection",
    )
} | {
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
}
"""A ControlNet is the half of a U-Net, with a network for its picture."""

_AUTOENCODER: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": [64],
    "down_block_types": ["DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "up_block_types": ["UpDecoderBlock2D"],
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
_CLIP_TEXT: dict[str, Any] = {
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "vocab_size": 49408,
}
_CLIP_VISION: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "image_size": 224,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 32,
}

_SD3_TRANSFORMER: dict[str, Any] = {
    "attention_head_dim": 64,
    "caption_projection_dim": 1152,
    "dual_attention_layers": [],
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 18,
    "num_layers": 18,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 96,
    "qk_norm": None,
}
_T5: dict[str, Any] = {
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-06,
    "num_heads": 8,
    "num_layers": 6,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}

SCALES = {"sdxl": 0.13025, "sdxl-refiner": 0.13025, "sd3": 1.5305}
SHIFTS = {"sd3": 0.0609}
"""Scaling and shift factors of latents, (latents - shift) * scale, in families that differ from the
class's defaults. Source: `vae/config.json` of stabilityai/stable-diffusion-xl-base-1.0 and
stable-diffusion-3-medium-diffusers."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "UNet2DConditionModel": _UNET, "ControlNetModel": _CONTROLNET, "AutoencoderKL": _AUTOENCODER,
    "CLIPTextModel": _CLIP_TEXT,
    "CLIPTextModelWithProjection": _CLIP_TEXT | {"projection_dim": 512},
    "CLIPVisionModel": _CLIP_VISION, "SD3Transformer2DModel": _SD3_TRANSFORMER,
    "T5EncoderModel": _T5,
}
"""The default of each field that defines a network, by class."""
