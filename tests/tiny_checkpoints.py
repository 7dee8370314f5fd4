"""Checkpoints with the shape of Stable Diffusion's, tiny and with random weights.

Their configs have what the real ones have (heads as one number or a list, transformers of several
layers, linear projections, activations, token numbers of old configs), and fewer channels, blocks
and layers: one of each kind that a network has.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "recipes" / "tiny-emoji" / "tokenizer"

_CLIP = {
    "vocab_size": 49408, "max_position_embeddings": 77, "num_attention_heads": 2,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,  # as before transformers 4.31
}
_UNET = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 64,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
FOUR_LEVELS = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
"""The blocks of published U-Nets, for tests that only run one: lowering them takes thrice the time
of `_UNET`."""
_VAE = {
    "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "layers_per_block": 1,
    "latent_channels": 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False,
}
STYLES = {
    "sd1": {
        "text_encoder": _CLIP | {"hidden_act": "quick_gelu", "hidden_size": 32,
                                 "intermediate_size": 64, "num_hidden_layers": 2},
        "unet": _UNET | {"attention_head_dim": 4, "cross_attention_dim": 32},
        "scheduler": _SCHEDULER,
        "pad_token": "<|endoftext|>",
    },
    "sd2": {
        "text_encoder": _CLIP | {"hidden_act": "gelu", "hidden_size": 48, "intermediate_size": 96,
                                 "num_hidden_layers": 3},
        "unet": _UNET | {"block_out_channels": (32, 32, 64), "attention_head_dim": (1, 2, 4),
                         "down_block_types": ("CrossAttnDownBlock2D", *["DownBlock2D"] * 2),
                         "up_block_types": (*["UpBlock2D"] * 2, "CrossAttnUpBlock2D"),
                         "cross_attention_dim": 48, "use_linear_projection": True,
                         "upcast_attention": True},
        "scheduler": _SCHEDULER | {"prediction_type": "v_prediction"},
        "pad_token": "!",
    },
}


_XL_UNET = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 128,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 1, "attention_head_dim": (1, 4), "cross_attention_dim": 80,
    "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 40 + 6 * 8,
}
_XL_SCHEDULER = _SCHEDULER | {
    "_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear",
    "prediction_type": "epsilon", "timestep_spacing": "leading", "use_karras_sigmas": False,
}
STYLES |= {
    "sdxl": {
        "text_encoder": _CLIP | {"hidden_act": "quick_gelu", "hidden_size": 32,
                                 "intermediate_size": 64, "num_hidden_layers": 3},
        "text_encoder_2": _CLIP | {"hidden_act": "gelu", "hidden_size": 48,
                                   "intermediate_size": 96, "num_hidden_layers": 4,
                                   "projection_dim": 40},
        "unet": _XL_UNET,
        "vae": {"scaling_factor": 0.13025, "force_upcast": True},
        "scheduler": _XL_SCHEDULER,
        "pad_token": "<|endoftext|>",
        "pad_token_2": "!",
    },
    "sdxl-refiner": {
        "text_encoder_2": _CLIP | {"hidden_act": "gelu", "hidden_size": 48,
                                   "intermediate_size": 96, "num_hidden_layers": 4,
                                   "projection_dim": 40},
        "unet": _XL_UNET | {
            "block_out_channels": (32, 64, 64), "attention_head_dim": (1, 2, 4),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 1, 2), "cross_attention_dim": 48,
            "projection_class_embeddings_input_dim": 40 + 5 * 8,
        },
        "vae": {"scaling_factor": 0.13025, "force_upcast": True},
        "scheduler": _XL_SCHEDULER,
        "pad_token_2": "!",
    },
}
_SD3_CLIP = _CLIP | {"hidden_act": "quick_gelu", "hidden_size": 48, "intermediate_size": 96,
                     "num_hidden_layers": 3, "projection_dim": 48}
_SD3_TRANSFORMER = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "sample_size": 16,
    "caption_projection_dim": 32, "joint_attention_dim": 96, "pooled_projection_dim": 72,
    "pos_embed_max_size": 12, "in_channels": 16, "out_channels": 16, "patch_size": 2,
}
THREE_BLOCKS = {"num_layers": 3, "dual_attention_layers": [0, 1]}
"""A transformer of Stable Diffusion 3.5 medium with two blocks of its first kind, for tests of
names."""
_SD3 = {
    "text_encoder": _SD3_CLIP,
    "text_encoder_2": _SD3_CLIP | {"hidden_act": "gelu", "hidden_size": 32, "projection_dim": 24},
    "text_encoder_3": {
        "vocab_size": 320, "d_model": 96, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2,
        "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 32,
    },
    "transformer": _SD3_TRANSFORMER,
    "vae": {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609,
            "use_quant_conv": False, "use_post_quant_conv": False, "force_upcast": True},
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000,
                  "shift": 3.0},
    "pad_token": "<|endoftext|>",
    "pad_token_2": "!",
}
STYLES |= {
    "sd3": _SD3,
    "sd3.5-medium": _SD3 | {"transformer": _SD3_TRANSFORMER | {
        "qk_norm": "rms_norm", "dual_attention_layers": [0], "pos_embed_max_size": 24}},
    "sd3.5-large": _SD3 | {"transformer": _SD3_TRANSFORMER | {"qk_norm": "rms_norm"}},
}
_PIPELINES = dict.fromkeys((name for name in STYLES if name.startswith("sd3")),
                           "StableDiffusion3Pipeline") | {"sdxl": "StableDiffusionXLPipeline",
              "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline"}


def write_checkpoint(folder, style, seed=1, **changes):
    """Writes a checkpoint of a style as diffusers does; `changes` to the configs of its parts."""
    torch.manual_seed(6 + seed)
    parts = {k: v | changes.get(k, {}) if isinstance(v, dict) else changes.get(k, v)
             for k, v in ({"vae": {}} | STYLES[style]).items()}
    index = {"_class_name": _PIPELINES.get(style, "StableDiffusionPipeline"),
             "scheduler": ["diffusers", parts["scheduler"]["_class_name"]]}
    for part, network in networks(parts, seed).items():
        network.save_pretrained(folder / part)
        index[part] = [type(network).__module__.partition(".")[0], type(network).__name__]
    _write_json(folder / "scheduler" / "scheduler_config.json", parts["scheduler"])
    for tokenizer, pad in (("tokenizer", "pad_token"), ("tokenizer_2", "pad_token_2")):
        if pad in parts:
            _write_tokenizer(folder / tokenizer, parts[pad])
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    if "text_encoder_3" in parts:
        _write_t5_tokenizer(folder / "tokenizer_3", parts["text_encoder_3"]["vocab_size"])
        index["tokenizer_3"] = ["transformers", "T5TokenizerFast"]
    _write_json(folder / "model_index.json", dict(sorted(index.items())))
    return folder


def networks(parts, seed=1):
    """The networks of a checkpoint with these configs, by their folders, with random weights."""
    made = {}
    if "text_encoder" in parts:
        kind = CLIPTextModelWithProjection if "projection_dim" in parts["text_encoder"] \
            else CLIPTextModel
        made["text_encoder"] = kind(CLIPTextConfig(**parts["text_encoder"]))
    if "text_encoder_2" in parts:
        made["text_encoder_2"] = CLIPTextModelWithProjection(
            CLIPTextConfig(**parts["text_encoder_2"]))
    if "text_encoder_3" in parts:
        made["text_encoder_3"] = randomized(
            T5EncoderModel(T5Config(**parts["text_encoder_3"])), seed)
    if "transformer" in parts:
        made["transformer"] = randomized(SD3Transformer2DModel(**parts["transformer"]), seed)
    else:
        made["unet"] = randomized(UNet2DConditionModel(**parts["unet"]))
    return made | {"vae": randomized(AutoencoderKL(**_VAE | parts["vae"]))}


def randomized(network, seed=1):
    """The network with normal parameters; those of norms are not 1 and 0, either."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=rng)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 9
        parameter.data = noise / fan_in**0.5 + ("norm" in name and name.endswith("weight"))
    return network.eval()


def _write_tokenizer(folder, pad_token):
    """CLIP's own vocabulary; the files differ in what they pad with."""
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
               "unk_token": "<|endoftext|>", "pad_token": pad_token}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True,
        "errors": "replace", **special,
    })


def t5_tokenizer(count):
    """A tokenizer of the kind that T5 has, with so many pieces: single letters and pairs."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.!?'-0123456789"
    words = [*("\u2581" + letter for letter in letters), *letters,
             *(a + b for a in letters[:26] for b in letters[:26])]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(word, -3.0 - number / 100) for number, word in enumerate(words)]
    made = Tokenizer(Unigram(pieces[:count], unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(prepend_scheme="always", split=True)])
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    made.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def _write_t5_tokenizer(folder, count):
    folder.mkdir()
    t5_tokenizer(count).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "T5Tokenizer", "model_max_length": 512, "eos_token": "</s>",
        "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0})


def _write_json(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
