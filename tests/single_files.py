"""Writes diffusers' networks as single files under the names of Stable Diffusion's first code.

The names are counted up as that code builds its modules, from the number of levels and layers.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.engine.stage import Job, stage
from tests.in_place import assert_same_in_place

CONFIGS = Path(__file__).parent / "fixtures" / "configs"
"""Those of published models."""

_WIDTH = 32

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
           "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
                  "to_out.0": "proj_out"}


def _modules(down, up, layers, attentions):
    """(diffusers' prefix, LDM's prefix, names inside) of a U-Net's modules, as LDM counts them."""
    found = [("conv_in", "input_blocks.0.0", {}), ("conv_norm_out", "out.0", {}),
             ("conv_out", "out.2", {}), ("time_embedding.linear_1", "time_embed.0", {}),
             ("time_embedding.linear_2", "time_embed.2", {}),
             ("mid_block.resnets.0", "middle_block.0", _RESNET),
             ("mid_block.attentions.0", "middle_block.1", {}),
             ("mid_block.resnets.1", "middle_block.2", _RESNET)]
    number = 1
    for level in range(down):
        for layer in range(layers):
            found.append((f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0",
                          _RESNET))
            if attentions[level]:
                found.append((f"down_blocks.{level}.attentions.{layer}",
                              f"input_blocks.{number}.1", {}))
            number += 1
        if level < down - 1:
            found.append((f"down_blocks.{level}.downsamplers.0.conv",
                          f"input_blocks.{number}.0.op", {}))
            number += 1
    number = 0
    for level in range(up):
        has_attention = attentions[down - 1 - level]
        for layer in range(layers + 1):
            found.append((f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0",
                          _RESNET))
            if has_attention:
                found.append((f"up_blocks.{level}.attentions.{layer}",
                              f"output_blocks.{number}.1", {}))
            if layer == layers and level < up - 1:
                found.append((f"up_blocks.{level}.upsamplers.0.conv",
                              f"output_blocks.{number}.{2 if has_attention else 1}.conv", {}))
            number += 1
    return found


def _vae_modules(levels, layers):
    found = [(n, n, {}) for n in ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in",
                                  "decoder.conv_out", "quant_conv", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        found += [(f"{half}.conv_norm_out", f"{half}.norm_out", {}),
                  (f"{half}.mid_block.resnets.0", f"{half}.mid.block_1", _VAE_RESNET),
                  (f"{half}.mid_block.resnets.1", f"{half}.mid.block_2", _VAE_RESNET),
                  (f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)]
    for level in range(levels):
        other = levels - 1 - level
        found += [(f"encoder.down_blocks.{level}.resnets.{i}", f"encoder.down.{level}.block.{i}",
                   _VAE_RESNET) for i in range(layers)]
        found += [(f"decoder.up_blocks.{level}.resnets.{i}", f"decoder.up.{other}.block.{i}",
                   _VAE_RESNET) for i in range(layers + 1)]
        found += [(f"encoder.down_blocks.{level}.downsamplers.0.conv",
                   f"encoder.down.{level}.downsample.conv", {}),
                  (f"decoder.up_blocks.{level}.upsamplers.0.conv",
                   f"decoder.up.{other}.upsample.conv", {})]
    return found


def _renamed(state, modules):
    made = {}
    for name, tensor in state.items():
        [(prefix, old, inner)] = [m for m in modules if name.startswith(f"{m[0]}.")]
        rest = name.removeprefix(f"{prefix}.")
        for new_name, old_name in inner.items():
            if rest.startswith(f"{new_name}."):
                rest = f"{old_name}.{rest.removeprefix(f'{new_name}.')}"
                break
        made[f"{old}.{rest}"] = tensor
    assert len(made) == len(state)
    return made


_EXTRA = [("add_embedding.linear_1", "label_emb.0.0", {}),
          ("add_embedding.linear_2", "label_emb.0.2", {}),
          ("time_embedding.cond_proj", "time_embed.cond_proj", {})]


def ldm_unet(state, config):
    attentions = ["CrossAttn" in kind for kind in config["down_block_types"]]
    count = len(attentions)
    modules = _modules(count, count, config["layers_per_block"], attentions)
    return _renamed(state, [*modules, *_EXTRA])


def ldm_controlnet(state, config):
    """As lllyasviel/ControlNet builds its modules: `cldm/cldm.py`, class ControlNet."""
    attentions = ["CrossAttn" in kind for kind in config["down_block_types"]]
    blocks = len(config["conditioning_embedding_out_channels"]) * 2 - 2
    picture = "controlnet_cond_embedding"
    residuals = sum(n.startswith("controlnet_down_blocks.") for n in state) // 2
    modules = _modules(len(attentions), 0, config["layers_per_block"], attentions)
    return _renamed(state, [
        *modules, *_EXTRA, ("controlnet_mid_block", "middle_block_out.0", {}),
        (f"{picture}.conv_in", "input_hint_block.0", {}),
        *((f"{picture}.blocks.{i}", f"input_hint_block.{2 * i + 2}", {}) for i in range(blocks)),
        (f"{picture}.conv_out", f"input_hint_block.{2 * blocks + 2}", {}),
        *((f"controlnet_down_blocks.{i}", f"zero_convs.{i}.0", {}) for i in range(residuals)),
    ])


def ldm_vae(state, config):
    made = _renamed(state, _vae_modules(len(config["block_out_channels"]),
                                        config["layers_per_block"]))
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
        for name, tensor in made.items()
    }


def open_clip(state):
    """CLIP's state as OpenCLIP's, with a last block and a projection that nobody uses."""
    layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("encoder.layers."))
    made = open_clip_blocks(state)
    for name in [n for n in made if n.startswith("transformer.resblocks.0.")]:
        made[name.replace(".0.", f".{layers}.", 1)] = torch.full_like(made[name], 7)
    width = state["final_layer_norm.bias"].shape[0]
    return made | {"text_projection": torch.ones(width, width)}


def open_clip_blocks(state):
    """CLIP's state as OpenCLIP's, without a projection."""
    made = {}
    layer_names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
                   "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    outer = {"embeddings.token_embedding.weight": "token_embedding.weight",
             "embeddings.position_embedding.weight": "positional_embedding",
             "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}
    layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("encoder.layers."))
    for name, tensor in state.items():
        if name in outer:
            made[outer[name]] = tensor
            continue
        number, rest = name.removeprefix("encoder.layers.").split(".", 1)
        for new, old in layer_names.items():
            if rest.startswith(f"{new}."):
                kind = rest.removeprefix(f"{new}.")
                made[f"transformer.resblocks.{number}.{old}.{kind}"] = tensor
    for number in range(layers):
        for kind in ("weight", "bias"):
            made[f"transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat([
                state[f"encoder.layers.{number}.self_attn.{x}_proj.{kind}"] for x in "qkv"
            ])
    return made | {"logit_scale": torch.ones(()), "attn_mask": torch.zeros(77, 77)}


def single_file(unet, vae, text_encoder):
    """The tensors of a single file, from (state, config) of the U-Net and the autoencoder and
    (state, "clip" or "open_clip") of the text encoder."""
    state, kind = text_encoder
    state = {n.removeprefix("text_model."): t for n, t in state.items()}
    if kind == "clip":
        clip = {f"cond_stage_model.transformer.text_model.{n}": t for n, t in state.items()}
        positions = torch.arange(77)[None]
        clip["cond_stage_model.transformer.text_model.embeddings.position_ids"] = positions
    else:
        clip = {f"cond_stage_model.model.{n}": t for n, t in open_clip(state).items()}
    return {
        **{f"model.diffusion_model.{n}": t for n, t in ldm_unet(*unet).items()},
        **{f"first_stage_model.{n}": t for n, t in ldm_vae(*vae).items()},
        **clip,
        "model_ema.decay": torch.ones(()), "betas": torch.ones(10),
        "model_ema.diffusion_modelout0weight": torch.ones(4),
    }


def write(path, tensors, metadata=None):
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata)
    return path


SMALL_UNET = {"block_out_channels": (64, 64, 128), "norm_num_groups": 32, "layers_per_block": 2,
              "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
              "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
SMALL = {
    "clip": (SMALL_UNET | {"cross_attention_dim": 768, "attention_head_dim": 8}, "quick_gelu"),
    "open_clip": (SMALL_UNET | {"cross_attention_dim": 1024, "attention_head_dim": (1, 1, 2),
                                "use_linear_projection": True}, "gelu"),
}
SMALL_VAE = {"block_out_channels": (32, 32, 32, 64), "layers_per_block": 2, "norm_num_groups": 32,
             "down_block_types": ("DownEncoderBlock2D",) * 4,
             "up_block_types": ("UpDecoderBlock2D",) * 4, "latent_channels": 4}
TOKENIZER = {"vocab.json", "merges.txt", "special_tokens_map.json"}


def small_checkpoint(folder, kind, dtype=torch.float16, layers=2, **unet):
    """A folder as diffusers writes it, with random networks small in all that may be small, and
    with changes to the config of its U-Net."""
    unet_config, act = SMALL[kind]
    torch.manual_seed(20)
    width = unet_config["cross_attention_dim"]
    networks = {
        "unet": UNet2DConditionModel(**unet_config | unet), "vae": AutoencoderKL(**SMALL_VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(
            vocab_size=300, hidden_size=width, intermediate_size=96, num_hidden_layers=layers,
            num_attention_heads=width // 64, hidden_act=act)),
    }
    for part, network in networks.items():
        network.to(dtype).save_pretrained(folder / part)
    return folder, {part: network.state_dict() for part, network in networks.items()}


def config_of(folder, part):
    return json.loads((folder / part / "config.json").read_text())


def hollow(path, tensors, metadata=None):
    """A file with the header of such tensors in fp16, and zeros that take no room on the disk: the
    tensors of a published model may be without numbers, on torch's device `meta`."""
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape),
                        "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def folder_of(folder, model, predicts, **unet):
    """A folder in diffusers' layout with a published model's configs, which are all that is read.
    """
    for path in sorted((CONFIGS / model).iterdir()):
        part = path.name
        (folder / part).mkdir(parents=True)
        config = config_of(CONFIGS / model, part) | (unet if part == "unet" else {})
        (folder / part / "config.json").write_text(json.dumps(config))
    for name, content in (("scheduler/scheduler_config.json", predicts),
                          ("tokenizer/vocab.json", {}), ("tokenizer/merges.txt", {})):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def joined(folder, states, kind):
    """Returns the tensors of a single file that holds the networks of a folder."""
    return single_file(
        (states["unet"], config_of(folder, "unet")), (states["vae"], config_of(folder, "vae")),
        (states["text_encoder"], kind),
    )


def download(place, output, part, prefixes=("",), config="", **params):
    """Runs the download of a part, and returns what it wrote by name; read in place, it is the
    same."""
    output.mkdir(parents=True)
    job = Job(
        params={**({"prefixes": list(prefixes)} if part != "resources" else {}), **params},
        inputs={},
        output=output, places=[str(place)], config=str(config), reads=[part],
    )
    assert_same_in_place(job, stage("download").run(job))
    return {p.name: p.read_bytes() for p in output.iterdir()}


def mmdit():
    """The tensors of a transformer of Stable Diffusion 3.5 medium's form, three blocks deep."""
    rng = torch.Generator().manual_seed(4)

    def random(*shape):
        return torch.randn(shape, generator=rng)

    def linear(name, out, into):
        return {f"{name}.weight": random(out, into), f"{name}.bias": random(out)}

    made = {"pos_embed": random(1, 24 * 24, _WIDTH),
            "x_embedder.proj.weight": random(_WIDTH, 16, 2, 2),
            "x_embedder.proj.bias": random(_WIDTH)}
    for name, out, into in (
        ("t_embedder.mlp.0", _WIDTH, 256), ("t_embedder.mlp.2", _WIDTH, _WIDTH),
        ("y_embedder.mlp.0", _WIDTH, 72), ("y_embedder.mlp.2", _WIDTH, _WIDTH),
        ("context_embedder", _WIDTH, 96), ("final_layer.linear", 64, _WIDTH),
        ("final_layer.adaLN_modulation.1", 2 * _WIDTH, _WIDTH),
    ):
        made |= linear(name, out, into)
    for number in range(3):
        for side in ("x_block", "context_block"):
            block = f"joint_blocks.{number}.{side}"
            is_last = side == "context_block" and number == 2
            attentions = ["attn", "attn2"] if side == "x_block" and number < 2 else ["attn"]
            for attention in attentions:
                made |= linear(f"{block}.{attention}.qkv", 3 * _WIDTH, _WIDTH)
                made |= {f"{block}.{attention}.ln_{letter}.weight": random(16) for letter in "qk"}
                if not is_last:
                    made |= linear(f"{block}.{attention}.proj", _WIDTH, _WIDTH)
            parts = 2 if is_last else 9 if len(attentions) == 2 else 6
            made |= linear(f"{block}.adaLN_modulation.1", parts * _WIDTH, _WIDTH)
            if not is_last:
                made |= linear(f"{block}.mlp.fc1", 4 * _WIDTH, _WIDTH)
                made |= linear(f"{block}.mlp.fc2", _WIDTH, 4 * _WIDTH)
    return made
