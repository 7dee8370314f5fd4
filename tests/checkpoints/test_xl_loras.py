"""LoRAs for Stable Diffusion XL are merged as diffusers and peft fuse them."""

import copy
import json
import warnings

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import functional

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.files import Files
from tests.loras import factors, kohya, merge, older, peft, save
from tests.xl_files import UNETS, text_encoder, text_encoder_2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lycoris.modules as lycoris

FIRST_NAMES = {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q":
        "input_blocks.3.1.transformer_blocks.1.attn1.to_q",
    "down_blocks.2.attentions.0.transformer_blocks.2.ff.net.0.proj":
        "input_blocks.5.1.transformer_blocks.2.ff.net.0.proj",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0":
        "middle_block.1.transformer_blocks.0.attn2.to_out.0",
    "up_blocks.0.attentions.1.transformer_blocks.2.attn2.to_k":
        "output_blocks.1.1.transformer_blocks.2.attn2.to_k",
    "up_blocks.1.attentions.0.proj_in": "output_blocks.2.1.proj_in",
}
"""With a layer in each block: counted by hand from `openaimodel.py` of Stability AI's code."""

CONVOLUTIONS = {"down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
                "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
                "down_blocks.1.resnets.0.time_emb_proj": "input_blocks.3.0.emb_layers.1",
                "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
                "up_blocks.2.resnets.1.conv_shortcut": "output_blocks.5.0.skip_connection"}
"""Those that LoRAs for few steps (LCM, Hyper-SD, DMD2) change, too."""
TEXT_LAYERS = ("text_model.encoder.layers.0.self_attn.q_proj",
               "text_model.encoder.layers.1.self_attn.out_proj",
               "text_model.encoder.layers.1.mlp.fc1")


def unet():
    return UNet2DConditionModel(**UNETS["base"])


def bare(layers):
    return [name.removeprefix("text_model.") for name in layers]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(3)
    return {"unet": unet(), "text_encoder": text_encoder(), "text_encoder_2": text_encoder_2()}


@pytest.fixture(scope="module")
def states(networks):
    """By the names of files, in which CLIP's have `text_model.`."""
    return {part: {n if part != "text_encoder" else f"text_model.{n}": t.detach().clone()
                   for n, t in network.state_dict().items()}
            for part, network in networks.items()}


@pytest.fixture(scope="module")
def loras(networks):
    """The factors of each component's layers."""
    first = factors(networks["text_encoder"], bare(TEXT_LAYERS), 4, seed=2)
    second = factors(networks["text_encoder_2"], TEXT_LAYERS, 4, seed=5)
    return {"unet": factors(networks["unet"], FIRST_NAMES, 4),
            "convolutions": factors(networks["unet"], CONVOLUTIONS, 4),
            "text_encoder": {f"text_model.{n}": pair for n, pair in first.items()},
            "text_encoder_2": second}


def fused(states, tensors, strength, metadata=None):
    """Returns the three networks as diffusers fuses them, by the names of files."""
    networks = {"unet": unet(), "text_encoder": text_encoder(), "text_encoder_2": text_encoder_2()}
    for part, network in networks.items():
        drop = "text_model." if part == "text_encoder" else ""
        network.load_state_dict({n.removeprefix(drop): t for n, t in states[part].items()})
    pipe = StableDiffusionXLPipeline(vae=None, tokenizer=None, tokenizer_2=None, scheduler=None,
                                     **networks)
    state, alphas = pipe.lora_state_dict(
        {name: tensor.detach().float() for name, tensor in tensors.items()},
        unet_config=pipe.unet.config)
    pipe.load_lora_into_unet(state, alphas, pipe.unet, metadata=metadata, _pipeline=pipe)
    for part in ("text_encoder", "text_encoder_2"):
        pipe.load_lora_into_text_encoder(state, alphas, getattr(pipe, part), prefix=part,
                                         metadata=metadata, _pipeline=pipe)
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()
    return {part: {n if part != "text_encoder" else f"text_model.{n}": t
                   for n, t in getattr(pipe, part).state_dict().items()} for part in networks}


def base(folder, state):
    folder.mkdir()
    save_file({n: t.contiguous() for n, t in state.items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text("{}")
    return folder


def expect_merged(tmp_path, states, file, wanted, strength):
    """Merges the file into each component; the number of tensors that changed."""
    changed = 0
    for part, state in states.items():
        made, facts = merge(base(tmp_path / f"base-{part}", state), tmp_path / f"out-{part}",
                            [(file, strength)], part)
        for name, tensor in made.items():
            torch.testing.assert_close(tensor, wanted[part][name], rtol=1e-5, atol=2e-5)
        differ = sum(not torch.equal(tensor, state[name]) for name, tensor in made.items())
        assert differ == facts["merged"][0]
        changed += differ
    return changed


def first_code(pairs):
    return {(FIRST_NAMES | CONVOLUTIONS)[name]: pair for name, pair in pairs.items()}


def kohya_text(loras):
    return kohya(loras["text_encoder"], 2, "lora_te1_") | kohya(
        loras["text_encoder_2"], 2, "lora_te2_")


def metadata():
    """Of the U-Net: diffusers does not load what it writes for text encoders."""
    said = {"lora_alpha": 8, "r": 4, "alpha_pattern": {}, "rank_pattern": {},
            "target_modules": list(FIRST_NAMES)}
    return {f"unet.{name}": value for name, value in said.items()}


FORMS = {
    "kohya, the first code's names": lambda x: kohya(first_code(x["unet"]), 2) | kohya_text(x),
    "kohya, diffusers' names": lambda x: kohya(x["unet"], 2) | kohya_text(x),
    "diffusers": lambda x: peft(x["unet"]) | peft(x["text_encoder"], "text_encoder.") | peft(
        x["text_encoder_2"], "text_encoder_2."),
    "diffusers with metadata": lambda x: peft(x["unet"]),
    "older diffusers": lambda x: older(x["unet"]) | older(
        x["text_encoder"], "text_encoder.", "lora_linear_layer") | older(
        x["text_encoder_2"], "text_encoder_2.", "lora_linear_layer"),
    "LoCon": lambda x: kohya(x["unet"] | x["convolutions"], 2) | kohya_text(x),
    "the second text encoder alone": lambda x: kohya(x["text_encoder_2"], 2, "lora_te2_"),
}


@pytest.mark.parametrize("form", FORMS)
def test_diffusers_fuses_the_same_into_xl(tmp_path, states, loras, form):
    tensors = FORMS[form](loras)
    said = metadata() if "metadata" in form else None
    file = save(tmp_path / "l.safetensors", tensors,
                {"lora_adapter_metadata": json.dumps(said)} if said else None)

    wanted = fused(states, tensors, 0.8, said)

    assert expect_merged(tmp_path, states, file, wanted, 0.8) == sum(
        n.endswith(("up.weight", "lora_B.weight")) for n in tensors)


def comfy(loras):
    names = first_code(loras["unet"] | loras["convolutions"])
    return peft(names, "diffusion_model.") | peft(
        loras["text_encoder"], "text_encoders.clip_l.transformer.") | peft(
        loras["text_encoder_2"], "text_encoders.clip_g.transformer.")


def own(loras):
    return peft(loras["unet"] | loras["convolutions"]) | peft(
        loras["text_encoder"], "text_encoder.") | peft(loras["text_encoder_2"], "text_encoder_2.")


SAME = {
    "ComfyUI": (comfy, own),
    "LoCon by the first code's names": (
        lambda x: kohya(first_code(x["unet"] | x["convolutions"]), 2) | kohya_text(x),
        FORMS["LoCon"]),
    "compiled": (lambda x: {n.replace("text_encoder_2.", "text_encoder_2._orig_mod."): t
                            for n, t in own(x).items()}, own),
}


@pytest.mark.parametrize("form", SAME)
def test_other_names_for_xl_merge_what_diffusers_fuses_under_its_own(
    tmp_path, states, loras, form,
):
    given, known = (make(loras) for make in SAME[form])
    file = save(tmp_path / "l.safetensors", given)

    wanted = fused(states, known, 0.6)

    assert expect_merged(tmp_path, states, file, wanted, 0.6) == len(known) // (
        3 if "LoCon" in form else 2)


@pytest.mark.parametrize("kind, options", [
    (lycoris.LohaModule, {}), (lycoris.LokrModule, {"factor": 4}),
    (lycoris.LoConModule, {"weight_decompose": True, "wd_on_out": True}),
], ids=["LoHa", "LoKr", "DoRA"])
def test_lycoris_adds_the_same_to_xl(tmp_path, networks, states, kind, options):
    tensors, modules, beside = {}, {}, copy.deepcopy(networks)
    for part, names, prefix in (("unet", FIRST_NAMES, "lora_unet"),
                                ("text_encoder_2", TEXT_LAYERS, "lora_te2")):
        for name in names:
            first = FIRST_NAMES.get(name, name)
            flat = f"{prefix}_{first.replace('.', '_')}"
            module = kind(flat, beside[part].get_submodule(name), 1.0, lora_dim=4, alpha=2,
                          **options).eval()
            torch.manual_seed(len(name))
            for role, parameter in module.named_parameters():
                positive = torch.rand(parameter.shape) + 0.5
                parameter.data = positive if "dora" in role else torch.randn(parameter.shape) * 0.3
            modules[part, name] = module
            tensors |= {f"{flat}.{n}": t.clone() for n, t in module.custom_state_dict().items()}
    file = save(tmp_path / "l.safetensors", tensors)

    for part in ("unet", "text_encoder_2"):
        made, facts = merge(base(tmp_path / f"base-{part}", states[part]), tmp_path / part,
                            [(file, 1.0)], part)
        for (owner, name), module in modules.items():
            if owner == part:
                layer = beside[part].get_submodule(name)
                given = torch.randn(2, 5, layer.in_features)
                with torch.inference_mode():
                    found = functional.linear(given, made[f"{name}.weight"], layer.bias)
                    module.apply_to()
                    torch.testing.assert_close(found, layer(given), rtol=1e-5, atol=1e-4)
        assert facts["merged"] == [sum(owner == part for owner, _ in modules)]


def test_a_lora_for_two_text_encoders_is_refused_where_there_is_one(tmp_path, loras):
    file = save(tmp_path / "l.safetensors", kohya_text(loras))

    Files([str(file)]).check("loras", "sdxl")
    with pytest.raises(SourceError, match="is made for Stable Diffusion XL") as error:
        Files([str(file)]).check("loras", "sd")
    assert "lora_te2_text_model_encoder_layers_0_self_attn_q_proj" in error.value.message


def test_a_lora_for_another_width_of_prompts_names_the_model_that_it_is_made_for(tmp_path, states):
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    file = save(tmp_path / "l.safetensors", {
        f"{layer}.lora_A.weight": torch.ones(2, 768), f"{layer}.lora_B.weight": torch.ones(64, 2)})

    with pytest.raises(SourceError, match="seems to be made for Stable Diffusion 1: its prompts"):
        merge(base(tmp_path / "base", states["unet"]), tmp_path / "out", [(file, 1.0)], "unet")


def test_changes_of_the_second_text_encoder_leave_the_first_as_it_is(tmp_path, states, loras):
    """Their layers have the same names."""
    file = save(tmp_path / "l.safetensors", kohya(loras["text_encoder_2"], 2, "lora_te2_"))

    made, facts = merge(base(tmp_path / "base", states["text_encoder"]), tmp_path / "out",
                        [(file, 1.0)], "text_encoder")

    assert facts["merged"] == [0]
    assert all(torch.equal(made[n], t) for n, t in states["text_encoder"].items())
    assert load_file(tmp_path / "out" / "weights.safetensors").keys() == made.keys()
