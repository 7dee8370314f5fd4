"""Checkpoints at full scale: the real architectures with random weights, written by streaming.

They are as large as the real ones and serve to measure time and memory; what they draw is noise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.families import FAMILIES, Family
from sdbuild.models import network
from sdbuild.models.parameters import NET
from sdbuild.recipe.project import BUILT_IN

_BLOCK = 1 << 22
"""Weights are written so many at a time, each from somewhere in a pool of twice as many."""

_UNET = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "center_input_sample": False,
    "block_out_channels": [320, 640, 1280, 1280], "downsample_padding": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "out_channels": 4,
    "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
    "norm_num_groups": 32, "sample_size": 64,
}
_VAE = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215,
}
_TEXT = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408,
    "max_position_embeddings": 77, "layer_norm_eps": 1e-05, "bos_token_id": 49406,
    "eos_token_id": 49407, "pad_token_id": 1,
}
_CHECKER = {
    "architectures": ["StableDiffusionSafetyChecker"], "model_type": "clip", "projection_dim": 768,
    "text_config": {},
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                      "num_hidden_layers": 24, "image_size": 224, "patch_size": 14},
}
_XL_TEXT = _TEXT | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                    "num_hidden_layers": 12, "hidden_act": "quick_gelu"}
CONFIGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sd-1-5": {
        "unet": _UNET | {"attention_head_dim": 8, "cross_attention_dim": 768},
        "vae": _VAE,
        "text_encoder": _TEXT | {"hidden_size": 768, "intermediate_size": 3072,
                                 "num_attention_heads": 12, "num_hidden_layers": 12,
                                 "hidden_act": "quick_gelu"},
        "safety_checker": _CHECKER,
    },
    "sd-2-1-base": {
        "unet": _UNET | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
                         "use_linear_projection": True},
        "vae": _VAE,
        "text_encoder": _TEXT | {"hidden_size": 1024, "intermediate_size": 4096,
                                 "num_attention_heads": 16, "num_hidden_layers": 23,
                                 "hidden_act": "gelu"},
    },
    "sdxl-base": {
        "unet": _UNET | {
            "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
            "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048,
            "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
            "sample_size": 128,
        },
        "vae": _VAE | {"scaling_factor": 0.13025, "force_upcast": True, "sample_size": 1024},
        "text_encoder": _XL_TEXT,
        "text_encoder_2": _TEXT | {
            "architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
            "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
            "hidden_act": "gelu", "projection_dim": 1280},
    },
}
"""The configs of the published checkpoints, as far as they define the networks."""


def family_of(name: str) -> Family:
    """The family of a published checkpoint."""
    return FAMILIES["sdxl" if name.startswith("sdxl") else "sd"]


def write_checkpoint(name: str, folder: Path, seed: int = 0) -> None:
    """Writes a checkpoint in diffusers' layout, fp16, with normal weights of a network's size."""
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(BUILT_IN / "tiny-emoji" / part, folder / part, dirs_exist_ok=True)
    if "text_encoder_2" in CONFIGS[name]:
        shutil.copytree(folder / "tokenizer", folder / "tokenizer_2", dirs_exist_ok=True)
    for part in CONFIGS[name]:
        write_part(name, part, folder, seed)


def write_part(name: str, part: str, folder: Path, seed: int = 0) -> None:
    """Writes one network of a checkpoint: its config and its weights."""
    config = CONFIGS[name][part]
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part / "config.json").write_text(json.dumps(config))
    stem = "model" if "architectures" in config else "diffusion_pytorch_model"
    _write(folder / part / f"{stem}.safetensors", dict(_shapes(family_of(name), config, part)),
           seed)


def _shapes(
    family: Family, config: Mapping[str, Any], part: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shape of each tensor, by its name in a checkpoint."""
    class_name = config.get("_class_name") or config["architectures"][0]
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k != "architectures"}
    architecture = network.Architecture(class_name=class_name, config=kept)
    for component in family.components:
        if component.folder == part and not component.comes_with:
            parameters = network.weightless(component, architecture).state_dict()
            for name, tensor in parameters.items():
                yield name.removeprefix(NET), tuple(tensor.shape)


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal(2 * _BLOCK, np.float32)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            fan_in = max(int(np.prod(shape[1:])), 1)
            count = int(np.prod(shape))
            for first in range(0, count, _BLOCK):
                start = int(rng.integers(_BLOCK))
                values = pool[start:start + min(_BLOCK, count - first)] / np.float32(fan_in**0.5)
                file.write(values.astype(np.float16).tobytes())
