"""Stable Diffusion XL as folders and single files, small in all that may be small.

Prompts are as wide as the real ones, for that is what tells the models apart.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.single_files import (
    SMALL_VAE,
    config_of,
    ldm_controlnet,
    ldm_unet,
    ldm_vae,
    open_clip_blocks,
)

CLIP = Path(__file__).parent.parent / "sdbuild" / "checkpoints" / "clip"
_CROSS, _PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP = "CrossAttnUpBlock2D", "UpBlock2D"
UNETS = {
    "base": {
        "block_out_channels": (64, 64, 128), "down_block_types": (_PLAIN, _CROSS, _CROSS),
        "up_block_types": (_UP_CROSS, _UP_CROSS, _UP), "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": (1, 2, 3), "cross_attention_dim": 2048,
        "projection_class_embeddings_input_dim": 2816,
    },
    "refiner": {
        "block_out_channels": (64, 64, 128, 128),
        "down_block_types": (_PLAIN, _CROSS, _CROSS, _PLAIN),
        "up_block_types": (_UP, _UP_CROSS, _UP_CROSS, _UP), "attention_head_dim": (1, 1, 2, 2),
        "transformer_layers_per_block": 2, "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
    },
}
for _config in UNETS.values():
    _config |= {"layers_per_block": 1, "use_linear_projection": True, "norm_num_groups": 32,
                "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
UNETS["inpainting"] = UNETS["base"] | {"in_channels": 9}
UNETS["lcm"] = UNETS["base"] | {"time_cond_proj_dim": 256}
CONTROLNET = {name: value for name, value in UNETS["base"].items() if name != "up_block_types"} | {
    "conditioning_embedding_out_channels": (8, 8, 16, 24)}
_CLIP_CONFIG = {"vocab_size": 300, "intermediate_size": 96, "num_hidden_layers": 2}
_SCHEDULER = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon"}


def text_encoder():
    return CLIPTextModel(CLIPTextConfig(
        hidden_size=768, num_attention_heads=12, hidden_act="quick_gelu", **_CLIP_CONFIG))


def text_encoder_2():
    return CLIPTextModelWithProjection(CLIPTextConfig(
        hidden_size=1280, num_attention_heads=20, hidden_act="gelu", projection_dim=64,
        **_CLIP_CONFIG))


def small_xl(folder, kind, dtype=torch.float16):
    """A folder as diffusers writes it, and the states of its networks."""
    torch.manual_seed(20)
    networks = {"unet": UNet2DConditionModel(**UNETS[kind]),
                "vae": AutoencoderKL(**SMALL_VAE, scaling_factor=0.13025),
                "text_encoder_2": text_encoder_2()}
    if kind != "refiner":
        networks["text_encoder"] = text_encoder()
    for part, network in networks.items():
        network.to(dtype).save_pretrained(folder / part)
    for tokenizer, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        if tokenizer == "tokenizer_2" or kind != "refiner":
            write_tokenizer(folder / tokenizer, pad)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(_SCHEDULER))
    return folder, {part: network.state_dict() for part, network in networks.items()}


def write_tokenizer(folder, pad):
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((CLIP / name).read_bytes())
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def open_clip_g(state):
    """The second text encoder's state as OpenCLIP has it: its projection is by inputs."""
    projection = state["text_projection.weight"]
    inner = {n.removeprefix("text_model."): t for n, t in state.items() if n.startswith("text_m")}
    return open_clip_blocks(inner) | {"text_projection": projection.T.contiguous()}


def xl_file(folder, states):
    """The tensors of a single file, as Stability AI's code for XL keeps them."""
    clip = "conditioner.embedders.0.transformer.text_model."
    encoder = {f"{clip}{n.removeprefix('text_model.')}": t
               for n, t in states.get("text_encoder", {}).items()}
    if encoder:
        encoder[f"{clip}embeddings.position_ids"] = torch.arange(77)[None]
    second = f"conditioner.embedders.{int('text_encoder' in states)}.model."
    unet = ldm_unet(states["unet"], config_of(folder, "unet"))
    vae = ldm_vae(states["vae"], config_of(folder, "vae"))
    return {
        **{f"model.diffusion_model.{n}": t for n, t in unet.items()},
        **{f"first_stage_model.{n}": t for n, t in vae.items()}, **encoder,
        **{f"{second}{n}": t for n, t in open_clip_g(states["text_encoder_2"]).items()},
        "denoiser.sigmas": torch.ones(1000),
    }


def small_controlnet(folder, **changes):
    """A ControlNet's folder, its state and the tensors of its first code."""
    torch.manual_seed(21)
    network = ControlNetModel(**CONTROLNET | changes)
    for name, parameter in network.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid")):  # zeros before training
            parameter.data = torch.randn(parameter.shape)
    network.half().save_pretrained(folder / "controlnet")
    state = network.state_dict()
    return folder, state, ldm_controlnet(state, config_of(folder, "controlnet"))
