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

from benchmarks.unet import SLIM
from sdbuild.families import FAMILIES, Family
from sdbuild.models import network
from sdbuild.models.parameters import NET
from sdbuild.recipe.project import BUILT_IN

_PADDED_WITH = {"sd-2": "!", "sdxl": "!", "sd-3": "!"}
"""Padding tokens by model, in XL and 3 of the second tokenizer; others pad with the end token."""

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
_XL_TEXT_2 = _TEXT | {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
    "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
    "hidden_act": "gelu", "projection_dim": 1280,
}
CONFIGS: dict[str, Mapping[str, Mapping[str, Any]]] = {
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
        "text_encoder_2": _XL_TEXT_2,
    },
    "sd-3-5-medium": {
        "transformer": {
            "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2,
            "in_channels": 16, "out_channels": 16, "num_layers": 24, "num_attention_heads": 24,
            "attention_head_dim": 64, "caption_projection_dim": 1536, "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
            "dual_attention_layers": list(range(13)),
        },
        "vae": _VAE | {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609,
                       "use_quant_conv": False, "use_post_quant_conv": False,
                       "force_upcast": True, "sample_size": 1024},
        "text_encoder": _XL_TEXT | {"architectures": ["CLIPTextModelWithProjection"],
                                    "projection_dim": 768},
        "text_encoder_2": _XL_TEXT_2,
    },
}
"""The configs of the published checkpoints, as far as they define the networks."""
_FIRST = CONFIGS["sd-1-5"]
_NOT_OF_CONTROLNETS = ("out_channels", "up_block_types", "center_input_sample", "sample_size")
CONFIGS["sd-1-5-control"] = {k: v for k, v in _FIRST.items() if k != "safety_checker"} | {
    "controlnet": {
        **{k: v for k, v in _FIRST["unet"].items() if k not in _NOT_OF_CONTROLNETS},
        "_class_name": "ControlNetModel",
    },
}
CONFIGS["sd-slim"] = {  # for what is built often
    "unet": _UNET | SLIM | {"cross_attention_dim": 768},
    "vae": _VAE | {"block_out_channels": [64, 128, 128, 128]},
    "text_encoder": {**_FIRST["text_encoder"], "num_hidden_layers": 4},
}
CONFIGS["sd-slim-deep"] = {
    **CONFIGS["sd-slim"],
    "unet": {**CONFIGS["sd-slim"]["unet"], "layers_per_block": 2},
    "text_encoder": {**_FIRST["text_encoder"], "num_hidden_layers": 8},
}
_XL = CONFIGS["sdxl-base"]
CONFIGS["sdxl-slim"] = {  # 0.8 billion parameters, for coremltools
    **_XL, "unet": {**_XL["unet"], "transformer_layers_per_block": [1, 2, 2]},
}
CONFIGS["sd-3-5-medium-t5"] = {
    **CONFIGS["sd-3-5-medium"],
    "text_encoder_3": {
        "architectures": ["T5EncoderModel"], "vocab_size": 32128, "d_model": 4096, "d_kv": 64,
        "d_ff": 10240, "num_heads": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    },
}


def family_of(name: str) -> Family:
    """The family of a published checkpoint."""
    return FAMILIES[next((family for start, family in (("sdxl", "sdxl"), ("sd-3", "sd3"))
                          if name.startswith(start)), "sd")]


def write_checkpoint(name: str, folder: Path, seed: int = 0) -> None:
    """Writes a checkpoint in diffusers' layout, fp16, with normal weights of a network's size."""
    shutil.copytree(BUILT_IN / "tiny-emoji" / "scheduler", folder / "scheduler",
                    dirs_exist_ok=True)
    write_tokenizers(name, folder, has_two="text_encoder_2" in CONFIGS[name])
    if t5 := CONFIGS[name].get("text_encoder_3"):
        _write_t5_tokenizer(folder / "tokenizer_3", t5["vocab_size"])
    for part in CONFIGS[name]:
        write_part(name, part, folder, seed)


def write_tokenizers(name: str, folder: Path, *, has_two: bool) -> None:
    """Writes the tokenizers of a model, which pad as the published ones: that is in its graphs."""
    names = ("tokenizer", "tokenizer_2") if has_two else ("tokenizer",)
    for part in names:
        shutil.copytree(BUILT_IN / "tiny-emoji" / "tokenizer", folder / part, dirs_exist_ok=True)
    pad = next((pad for model, pad in _PADDED_WITH.items() if name.startswith(model)), None)
    for file in ("special_tokens_map.json", "tokenizer_config.json") if pad else ():
        path = folder / names[-1] / file
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"pad_token": pad}))


def _write_t5_tokenizer(folder: Path, count: int) -> None:
    """Writes a tokenizer of T5's kind, with so many pieces, which are no words."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{number}" for number in range(count - 3))]
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {
        "type": "Unigram", "unk_id": 2, "vocab": [[piece, 0.0] for piece in pieces]}}))


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
        if component.folder == part and (component.name == part or not component.comes_with):
            parameters = network.weightless(component, architecture).state_dict()
            for name, tensor in parameters.items():
                shape = tuple(tensor.shape)
                if name == f"{NET}pos_embed.pos_embed":  # of all positions, and not of a size's
                    shape = (1, config["pos_embed_max_size"] ** 2, shape[-1])
                prefix = component.drop if part == "text_encoder_3" else ""  # T5 is never without
                yield prefix + name.removeprefix(NET), shape


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
