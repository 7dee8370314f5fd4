"""Each form of LoRA that people have is merged as the library of its writers merges it.

`docs/checkpoints.md` lists the forms; each row names the case here.
"""

import copy
import json
import warnings

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from sdbuild.checkpoints.loras.layers import layers
from tests.loras import (
    CLIP,
    CONV,
    LAYERS,
    LINEAR,
    LIST,
    OUTPUT,
    PROJECTION,
    QUERY,
    checkpoint,
    factors,
    kohya,
    loaded_network,
    merge,
    network,
    older,
    oldest,
    peft,
    save,
    text_encoder,
    weights,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lycoris.modules as lycoris
    from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model

UNET = factors(network(), LAYERS, rank=4)
TEXT = {f"text_model.{name}": pair for name, pair in factors(
    text_encoder(), [n.removeprefix("text_model.") for n in (QUERY, OUTPUT, CLIP)], 4).items()}
ATTENTION = {name: UNET[name] for name in (LINEAR, LIST)}
SELF_ATTENTION = {name: TEXT[name] for name in (QUERY, OUTPUT)}


def fused(tensors, metadata=None, strength=1.0, **options):
    """Returns both networks as diffusers fuses them, by the checkpoint's names."""
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=text_encoder(), tokenizer=None, unet=loaded_network(),
        scheduler=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )
    tensors = {name: tensor.detach().float() for name, tensor in tensors.items()}
    state, alphas = pipe.lora_state_dict(tensors, **options)
    pipe.load_lora_into_unet(state, alphas, pipe.unet, metadata=metadata, _pipeline=pipe)
    pipe.load_lora_into_text_encoder(state, alphas, pipe.text_encoder, metadata=metadata,
                                     _pipeline=pipe)
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()
    return pipe.unet.state_dict(), {
        f"text_model.{n}": t for n, t in pipe.text_encoder.state_dict().items()}


def merges(tmp_path, file, wanted, part="unet", strength=1.0, atol=2e-5):
    """Merges the file and compares all tensors; the number of those that changed."""
    before = weights(part)
    tensors, facts = merge(checkpoint(tmp_path / f"base-{part}", part), tmp_path / f"out-{part}",
                           [(file, strength)], part)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, wanted[name].detach().float(), rtol=1e-5, atol=atol)
    changed = sum(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert changed == facts["merged"][0]
    return changed


def ldm_names(factors):
    """kohya's file on the layers of the first code; tiny-emoji has one block at each level."""
    names = {LINEAR: "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
             LIST: "middle_block.1.transformer_blocks.0.attn2.to_out.0",
             CONV: "output_blocks.2.0.in_layers.2", PROJECTION: "output_blocks.2.1.proj_in"}
    return {names[name]: pair for name, pair in factors.items()}


def magnitudes(factors, name):
    """One number for each output; for a convolution in peft's shape."""
    made = {}
    for layer, (_, up) in factors.items():
        rng = torch.Generator().manual_seed(9)
        numbers = torch.rand(up.weight.shape[0], generator=rng) + 0.5
        made[name(layer)] = numbers if up.weight.dim() == 2 else numbers.reshape(1, -1, 1, 1)
    return made


def text_older(factors, prefix="text_encoder."):
    """Text encoders once had the U-Net's names of a query: `self_attn.to_q_lora.down`."""
    names = {QUERY: "to_q", OUTPUT: "to_out"}
    return {
        f"{prefix}{name.rpartition('.')[0]}.{names[name]}_lora.{side}.weight": part.weight
        for name, pair in factors.items() for side, part in zip(("down", "up"), pair, strict=True)
    }


def mixed_ranks():
    return peft({LINEAR: UNET[LINEAR]} | factors(network(), [LIST], rank=2))


def converted(tensors, dtype):
    return {name: tensor.detach().to(dtype) for name, tensor in tensors.items()}


PEFT = peft(UNET) | peft(TEXT, "text_encoder.")

FUSED = {
    "kohya": (kohya(ATTENTION, 2) | kohya(SELF_ATTENTION, 2, "lora_te_"), None),
    "kohya-convolutions": (kohya(UNET, 2), None),
    "kohya-te1": (kohya(SELF_ATTENTION, 2, "lora_te1_"), None),
    "diffusers-peft": (PEFT, None),
    "diffusers-lora": (older(ATTENTION) | older(
        SELF_ATTENTION, "text_encoder.", "lora_linear_layer"), None),
    "attention-processors": (oldest(ATTENTION, "unet."), None),
    "old-text-encoder": (oldest(ATTENTION, "unet.") | text_older(SELF_ATTENTION), None),
    "mixed-ranks": (mixed_ranks(), None),
    "bfloat16": (converted(PEFT, torch.bfloat16), None),
    "float16": (converted(PEFT, torch.float16), None),
    "float64": (converted(PEFT, torch.float64), None),
    "dora-diffusers": (peft(UNET) | magnitudes(
        UNET, lambda n: f"unet.{n}.lora_magnitude_vector"), None),
    "metadata-alpha": (peft(ATTENTION), {"lora_alpha": 8, "r": 4, "alpha_pattern": {
        LIST: 2}, "rank_pattern": {}, "target_modules": [LINEAR, LIST]}),
    "metadata-rslora": (peft(ATTENTION), {"lora_alpha": 8, "r": 4, "use_rslora": True,
                                          "target_modules": [LINEAR, LIST]}),
}


@pytest.mark.parametrize("case", FUSED)
def test_diffusers_fuses_the_same(tmp_path, case):
    tensors, said = FUSED[case]
    strength = 1.0 if "dora" in case else 0.8
    metadata = {f"unet.{name}": value for name, value in (said or {}).items()}
    file = save(tmp_path / "l.safetensors", tensors,
                {"lora_adapter_metadata": json.dumps(metadata)} if said else None)

    unet, text = fused(tensors, metadata or None, strength)

    changed = merges(tmp_path, file, unet, "unet", strength)
    changed += merges(tmp_path, file, text, "text_encoder", strength)
    assert changed == sum(name.endswith(("up.weight", "lora_B.weight")) for name in tensors)


DORA = peft(ATTENTION) | magnitudes(ATTENTION, lambda n: f"unet.{n}.lora_magnitude_vector")

SAME = {
    "ldm-kohya": (kohya(ldm_names(UNET), 2), kohya(UNET, 2)),
    "ldm-comfyui": (older(ldm_names(UNET), "diffusion_model.") | peft(
        TEXT, "text_encoders.clip_l.transformer."), PEFT),
    "ldm-comfyui-kohya": (
        {f"diffusion_model.{n}.{k}.weight": p.weight for n, pair in ldm_names(UNET).items()
         for k, p in zip(("lora_down", "lora_up"), pair, strict=True)}, peft(UNET)),
    "no-prefix": (oldest(ATTENTION), oldest(ATTENTION, "unet.")),
    "torch-compile": ({f"unet._orig_mod.{n.removeprefix('unet.')}": t
                       for n, t in peft(UNET).items()}, peft(UNET)),
    "torch-compile-inside": (
        {n.replace("attn1.", "attn1._orig_mod."): t for n, t in peft(UNET).items()}, peft(UNET)),
    "torch-compile-kohya": (kohya(UNET, 2, "lora_unet__orig_mod_"), kohya(UNET, 2)),
    "data-parallel": ({n.replace("unet.", "unet.module."): t for n, t in peft(UNET).items()},
                      peft(UNET)),
    "adapter-names": ({n.replace(".weight", ".default_0.weight"): t
                       for n, t in PEFT.items()}, PEFT),
    "dora-kohya": (kohya(ATTENTION, 4) | magnitudes(
        ATTENTION, lambda n: f"lora_unet_{n.replace('.', '_')}.dora_scale"), DORA),
    "dora-mixed-names": (
        kohya(ATTENTION, 4) | magnitudes(ATTENTION, lambda n: "lora_unet_" + n.replace(
            ".", "_").replace("attn1_to_q", "attn1.to_q").replace("out_0", "out.0")
            + ".lora_magnitude_vector"), DORA),
    "bundled-embedding": (PEFT | {"bundle_emb.ohwx.string_to_param.*": torch.ones(2, 64)}, PEFT),
}


@pytest.mark.parametrize("case", SAME)
def test_other_names_merge_what_diffusers_fuses_under_its_own(tmp_path, case):
    tensors, known = SAME[case]
    file = save(tmp_path / "l.safetensors", tensors)

    unet, text = fused(known, None, 0.7 if "dora" not in case else 1.0)

    changed = merges(tmp_path, file, unet, "unet", 0.7 if "dora" not in case else 1.0)
    assert changed == sum(("unet." in n and "lora_B" in n) or ("lora_unet" in n and "_up." in n)
                          or ("to_" in n and "lora.up" in n) for n in known)
    merges(tmp_path, file, text, "text_encoder", 0.7)


@pytest.mark.parametrize("channels", [(64, 64, 96), (320, 640, 1280, 1280)])
def test_diffusers_names_every_layer_of_the_first_code_the_same(channels):
    config = dict(network().config)
    if len(channels) == 4:  # Stable Diffusion 1 and 2
        config |= {"block_out_channels": channels, "layers_per_block": 2,
                   "attention_head_dim": 8, "num_attention_heads": None,
                   "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
                   "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}
    with torch.device("meta"):
        net = type(network()).from_config(config)
    names = {n for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}

    found = layers([f"{n}.weight" for n in names])

    first = {}
    for flat, bases in found.items():
        assert len(bases) == 1, flat
        if flat.startswith(("input_blocks", "middle_block", "output_blocks")):
            first[bases[0]] = flat
    assert names - set(first) == {
        "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    # diffusers takes what follows the blocks in a level without attentions for an attention
    first.pop("up_blocks.0.upsamplers.0.conv")
    first.pop("conv_in")
    # and takes block 10 for block 1
    first = {base: flat for base, flat in first.items() if not flat.split("_")[2].startswith("1")
             or flat.split("_")[2] == "1"}
    tensors = {f"lora_unet_{flat}.lora_{side}.weight": torch.zeros(1, 1)
               for flat in first.values() for side in ("down", "up")}
    state, _ = StableDiffusionPipeline.lora_state_dict(tensors, unet_config=net.config)
    theirs = {n.removeprefix("unet.").replace(".processor", "").replace("to_out_lora", "to_out.0")
              .removesuffix(".down.weight").removesuffix(".lora").removesuffix("_lora")
              for n in state if "down.weight" in n}
    assert theirs == set(first)


ADAPTERS = {
    "peft-lora": LoraConfig(r=4, lora_alpha=6, target_modules=list(LAYERS)),
    "peft-patterns": LoraConfig(r=4, lora_alpha=6, target_modules=list(LAYERS),
                                rank_pattern={"attn1.to_q": 2},
                                alpha_pattern={r"^" + CONV: 3, "proj_in": 1.5}),
    "peft-rslora": LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=list(LAYERS)),
    "peft-dora": LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=list(LAYERS)),
    "peft-bias": LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=[LIST, CONV]),
    "peft-loha": LoHaConfig(r=4, alpha=6, target_modules=list(LAYERS)),
    "peft-loha-tucker": LoHaConfig(r=4, alpha=6, use_effective_conv2d=True,
                                   target_modules=list(LAYERS)),
    "peft-lokr": LoKrConfig(r=4, alpha=6, target_modules=list(LAYERS)),
    "peft-lokr-tucker": LoKrConfig(r=4, alpha=6, use_effective_conv2d=True,
                                   target_modules=list(LAYERS)),
    "peft-lokr-whole": LoKrConfig(r=64, alpha=6, target_modules=list(LAYERS)),
    "peft-lokr-both": LoKrConfig(r=2, alpha=6, decompose_both=True, target_modules=list(LAYERS)),
}


@pytest.mark.filterwarnings("ignore:.*have invalid shape")  # peft on its own biases
@pytest.mark.parametrize("case", ADAPTERS)
def test_peft_merges_the_same(tmp_path, case):
    model = get_peft_model(loaded_network(), copy.deepcopy(ADAPTERS[case]))
    randomised(model)
    model.save_pretrained(tmp_path / "adapter")

    again = PeftModel.from_pretrained(loaded_network(), tmp_path / "adapter")
    wanted = again.merge_and_unload().state_dict()

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    assert all(name.startswith("base_model.model.") for name in load_file(file))
    assert merges(tmp_path, file, wanted) >= 2


def randomised(module, scale=0.3):
    torch.manual_seed(4)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_magnitude = "magnitude" in name or "dora_scale" in name
            made = torch.rand(parameter.shape) + 0.5 if is_magnitude else (
                torch.randn(parameter.shape) * scale)
            parameter.data.copy_(made)


LYCORIS = {
    "lycoris-locon": (lycoris.LoConModule, {}),
    "lycoris-locon-tucker": (lycoris.LoConModule, {"use_tucker": True}),
    "lycoris-loha": (lycoris.LohaModule, {}),
    "lycoris-loha-tucker": (lycoris.LohaModule, {"use_tucker": True}),
    "lycoris-lokr": (lycoris.LokrModule, {"factor": 4}),
    "lycoris-lokr-tucker": (lycoris.LokrModule, {"factor": 4, "use_tucker": True}),
    "lycoris-lokr-both": (lycoris.LokrModule, {"factor": 8, "lora_dim": 2,
                                               "decompose_both": True}),
    "lycoris-lokr-whole": (lycoris.LokrModule, {"factor": 4, "full_matrix": True}),
    "lycoris-dora": (lycoris.LoConModule, {"weight_decompose": True, "wd_on_out": True}),
    "lycoris-dora-inputs": (lycoris.LoConModule, {"weight_decompose": True, "wd_on_out": False}),
    "lycoris-doha": (lycoris.LohaModule, {"weight_decompose": True, "wd_on_out": True}),
    "lycoris-dokr-inputs": (lycoris.LokrModule, {"weight_decompose": True, "wd_on_out": False}),
}


@pytest.mark.parametrize("case", LYCORIS)
def test_a_merged_layer_computes_what_lycoris_computes_beside_it(tmp_path, case):
    kind, options = LYCORIS[case]
    net = loaded_network()
    strength = 1.0 if options.get("weight_decompose") else 0.6
    tensors, modules = {}, {}
    for name in LAYERS:
        flat = f"lycoris_{name.replace('.', '_')}"
        modules[name] = kind(flat, net.get_submodule(name), strength,
                             **{"lora_dim": 4, "alpha": 2} | options).eval()
        randomised(modules[name])
        for role, tensor in modules[name].custom_state_dict().items():
            tensors[f"{flat}.{role}"] = tensor.clone()
    file = save(tmp_path / "l.safetensors", tensors)

    made, _ = merge(checkpoint(tmp_path / "base"), tmp_path / "out", [(file, strength)])

    merged = network()
    merged.load_state_dict(made)
    for name, module in modules.items():
        layer, beside = merged.get_submodule(name), net.get_submodule(name)
        shape = (2, 5, layer.in_features) if isinstance(layer, nn.Linear) else (
            2, layer.in_channels, 6, 6)
        given = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            plain = beside(given)
            module.apply_to()
            wanted = beside(given)
            torch.testing.assert_close(layer(given), wanted, rtol=1e-5, atol=1e-4)
        assert (wanted - plain).abs().max() > 0.1


def test_differences_of_weights_biases_and_norms_are_added_as_by_lycoris(tmp_path):
    net = loaded_network()
    norm = "down_blocks.0.resnets.0.norm1"
    wanted = dict(net.state_dict())
    tensors = {}
    for name, kind, roles in ((CONV, lycoris.FullModule, ("diff", "diff_b")),
                              (norm, lycoris.NormModule, ("w_norm", "b_norm"))):
        flat = f"lora_unet_{name.replace('.', '_')}"
        layer = net.get_submodule(name)
        torch.manual_seed(6)
        changes = [torch.randn_like(layer.weight), torch.randn_like(layer.bias)]
        tensors |= {f"{flat}.{role}": t for role, t in zip(roles, changes, strict=True)}
        with torch.no_grad():
            module = kind.make_module_from_state_dict(flat, layer, *changes)
            deltas = module.get_diff_weight(0.6)
        for role, delta in zip(("weight", "bias"), deltas, strict=True):
            wanted[f"{name}.{role}"] = wanted[f"{name}.{role}"] + delta
    file = save(tmp_path / "l.safetensors", tensors)

    assert merges(tmp_path, file, wanted, strength=0.6) == 4


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_is_what_torch_decodes(tmp_path, dtype):
    tensors = converted(peft(ATTENTION), dtype)
    file = save(tmp_path / "l.safetensors", tensors)

    unet, _ = fused(tensors)

    assert merges(tmp_path, file, unet) == 2


@pytest.mark.parametrize("strength", [0.0, 0.4, -0.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_strength_of_a_dora_goes_from_the_weight_to_what_it_makes_of_it(
    tmp_path, axis, strength
):
    down, up = (part.weight.detach() for part in UNET[CONV])
    before = weights()[f"{CONV}.weight"]
    made = before + (up.flatten(1) @ down.flatten(1)).reshape(before.shape)
    sides = [side for side in range(4) if side != axis]
    norm = torch.linalg.vector_norm(made, dim=sides, keepdim=True)
    magnitude = torch.rand_like(norm) + 0.5
    dora = magnitude * made / norm
    flat = f"lora_unet_{CONV.replace('.', '_')}"
    file = save(tmp_path / "l.safetensors", kohya({CONV: UNET[CONV]}, 4) | {
        f"{flat}.dora_scale": magnitude})

    tensors, _ = merge(checkpoint(tmp_path / "base"), tmp_path / "out", [(file, strength)])

    wanted = before + strength * (dora - before)
    torch.testing.assert_close(tensors[f"{CONV}.weight"], wanted, rtol=1e-5, atol=2e-5)
