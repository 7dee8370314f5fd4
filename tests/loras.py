"""LoRA files on tiny-emoji's networks, and the step that merges them."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.engine.stage import Job, stage

TINY_EMOJI = Path(__file__).parent.parent / "recipes" / "tiny-emoji"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
LIST = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "up_blocks.1.resnets.0.conv1"
PROJECTION = "up_blocks.1.attentions.0.proj_in"
LAYERS = (LINEAR, LIST, CONV, PROJECTION)
QUERY = "text_model.encoder.layers.0.self_attn.q_proj"
OUTPUT = "text_model.encoder.layers.1.self_attn.out_proj"
CLIP = "text_model.encoder.layers.1.mlp.fc1"


def weights(part="unet"):
    return load_file(next((TINY_EMOJI / part).glob("*.safetensors")))


def checkpoint(folder, part="unet", dtype=torch.float32):
    folder.mkdir()
    save_file({n: t.to(dtype) for n, t in weights(part).items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text("{}")
    return folder


def merge(base, output, loras, component="unet"):
    output.mkdir()
    facts = stage("merge").run(Job(
        params={"component": component, "strengths": [s for _, s in loras]},
        inputs={"checkpoint": base}, output=output, places=[str(p) for p, _ in loras],
    ))
    return load_file(output / "weights.safetensors"), facts


def network():
    config = json.loads((TINY_EMOJI / "unet" / "config.json").read_text())
    return UNet2DConditionModel.from_config(config).eval()


def loaded_network():
    net = network()
    net.load_state_dict(weights())
    return net


def text_encoder():
    config = CLIPTextConfig(**json.loads((TINY_EMOJI / "text_encoder/config.json").read_text()))
    net = CLIPTextModel(config).eval()
    names = {n.removeprefix("text_model."): t for n, t in weights("text_encoder").items()}
    net.load_state_dict(names, strict=False)
    return net


def factors(net, layers, rank, seed=1):
    """{layer: (down, up)} as modules of the layer's own kind, of random weights."""
    torch.manual_seed(seed)
    made = {}
    for name in layers:
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Linear):
            down = nn.Linear(layer.in_features, rank, bias=False)
            up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride,
                             layer.padding, bias=False)
            up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        made[name] = (down, up)
    return made


def kohya(factors, alpha, prefix="lora_unet_"):
    tensors = {}
    for name, (down, up) in factors.items():
        flat = prefix + name.replace(".", "_")
        tensors |= {f"{flat}.lora_down.weight": down.weight, f"{flat}.lora_up.weight": up.weight,
                    f"{flat}.alpha": torch.tensor(float(alpha))}
    return tensors


def peft(factors, prefix="unet."):
    return {f"{prefix}{name}.lora_{letter}.weight": part.weight
            for name, pair in factors.items() for letter, part in zip("AB", pair, strict=True)}


def older(factors, prefix="unet.", middle="lora"):
    return {f"{prefix}{name}.{middle}.{side}.weight": part.weight
            for name, pair in factors.items()
            for side, part in zip(("down", "up"), pair, strict=True)}


def oldest(factors, prefix=""):
    """Attention alone, in processors; `to_out` without its number."""
    return {
        f"{prefix}{name.removesuffix('.0').rpartition('.')[0]}.processor."
        f"{name.removesuffix('.0').rpartition('.')[2]}_lora.{side}.weight": part.weight
        for name, pair in factors.items() for side, part in zip(("down", "up"), pair, strict=True)
    }


def save(path, tensors, metadata=None):
    save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, path, metadata)
    return path
