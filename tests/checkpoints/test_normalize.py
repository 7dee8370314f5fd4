"""Configs and names of any age come out in one form."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize
from sdbuild.checkpoints.defaults import DEFAULTS
from sdbuild.safetensors import tensors
from sdbuild.safetensors.tensors import Tensor

CONFIGS = Path(__file__).parent.parent / "fixtures" / "configs"
XL = "stable-diffusion-xl-base-1.0"
MODELS = {"stable-diffusion-v1-5": "sd", "stable-diffusion-2-1": "sd", XL: "sdxl"}


def saved(model, part):
    return json.loads((CONFIGS / model / part / "config.json").read_text())


def tensor(name, *shape):
    return Tensor(name=name, dtype="F16", shape=shape, file=Path("x"), start=0, size_bytes=0)


def names(part, *found):
    return [t.name for t in normalize.tensors(part, [tensor(name, 1) for name in found])]


@pytest.mark.parametrize("network", [UNet2DConditionModel, ControlNetModel, AutoencoderKL])
def test_the_defaults_are_those_of_diffusers(network):
    parameters = inspect.signature(network.__init__).parameters.values()
    wanted = {p.name: p.default for p in parameters if p.default is not p.empty}

    found = DEFAULTS[network.__name__]

    left_out = {"sample_size", "dropout", "upcast_attention", "force_upcast"}
    assert wanted.keys() - found.keys() == left_out & wanted.keys()
    assert found == {
        k: list(v) if isinstance(v, tuple) else v for k, v in wanted.items() if k not in left_out
    }


@pytest.mark.parametrize(("network", "config"), [
    ("CLIPTextModel", CLIPTextConfig()),
    ("CLIPTextModelWithProjection", CLIPTextConfig()), ("CLIPVisionModel", CLIPVisionConfig()),
])
def test_the_defaults_are_those_of_transformers(network, config):
    assert DEFAULTS[network] == {name: getattr(config, name) for name in DEFAULTS[network]}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("part", "network"), [
    ("unet", UNet2DConditionModel), ("vae", AutoencoderKL),
])
def test_an_old_config_and_what_diffusers_now_saves_for_it_are_one_architecture(
    model, part, network, tmp_path,
):
    old = saved(model, part)
    with torch.device("meta"):
        network.from_config(old).save_config(tmp_path)
    new = json.loads((tmp_path / "config.json").read_text())
    assert new.keys() != old.keys()

    family = MODELS[model]
    assert normalize.architecture(part, new, family) == normalize.architecture(part, old, family)


@pytest.mark.parametrize("model", MODELS)
def test_an_old_text_encoder_and_what_transformers_now_saves_are_one_architecture(
    model, tmp_path,
):
    old = saved(model, "text_encoder")
    CLIPTextConfig(**old).save_pretrained(tmp_path)
    new = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["CLIPTextModel"]}
    assert new.keys() != old.keys()

    found = normalize.architecture("text_encoder", new)

    assert found == normalize.architecture("text_encoder", old)
    assert found["config"]["eos_token_id"] == 49407


def test_a_second_text_encoder_keeps_the_width_of_its_projection(tmp_path):
    old = saved(XL, "text_encoder_2")
    kind = ["CLIPTextModelWithProjection"]
    CLIPTextConfig(**old).save_pretrained(tmp_path)
    new = json.loads((tmp_path / "config.json").read_text()) | {"architectures": kind}

    found = normalize.architecture("text_encoder_2", new)

    assert found == normalize.architecture("text_encoder_2", old)
    assert (found["class"], found["config"]["projection_dim"]) == (kind[0], 1280)


def test_the_text_encoder_of_xl_is_that_of_the_first_generation():
    assert normalize.architecture("text_encoder", saved(XL, "text_encoder")) == (
        normalize.architecture("text_encoder", saved("stable-diffusion-v1-5", "text_encoder")))


@pytest.mark.parametrize("said, told", [
    ({"force_upcast": False}, {"force_upcast": False}), ({"force_upcast": True}, {}), ({}, {}),
])
def test_an_autoencoder_says_that_it_need_not_be_computed_in_fp32(said, told):
    """diffusers writes its default, true, into the config of any; older configs say nothing."""
    config = {n: v for n, v in saved(XL, "vae").items() if n != "force_upcast"}

    found = normalize.architecture("vae", config | said)

    assert found == normalize.architecture("vae", config) | told


@pytest.mark.parametrize("family, config, message", [
    ("sd", {}, "addition_embed_type is 'text_time', expected null: it is of Stable Diffusion XL"),
    ("sdxl", {"addition_embed_type": None}, "is null, expected 'text_time'"),
    ("sdxl", {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560},
     "are those of Stable Diffusion XL's refiner"),
    ("sdxl-refiner", {}, "are those of Stable Diffusion XL"),
    ("sdxl-refiner", {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560,
                      "in_channels": 9}, "it is for inpainting"),
    ("sdxl", {"addition_time_embed_dim": None}, "addition_time_embed_dim is null, expected a"),
])
def test_a_u_net_of_another_family_is_refused(family, config, message):
    with pytest.raises(SourceError, match=message):
        normalize.architecture("unet", saved(XL, "unet") | config, family)


@pytest.mark.parametrize("asked, model, hint", [
    ("sd", XL, 'a recipe with family = "sdxl" builds it'),
    ("sdxl-refiner", XL, 'a recipe with family = "sdxl" builds it'),
    ("sdxl", "stable-diffusion-v1-5", 'a recipe with family = "sd" builds it'),
])
def test_a_u_net_of_another_family_names_the_one_that_builds_it(asked, model, hint):
    with pytest.raises(SourceError) as error:
        normalize.architecture("unet", saved(model, "unet"), asked)
    assert error.value.hint == hint


PUBLISHED_CHECKER = {
    "_name_or_path": "CompVis/stable-diffusion-safety-checker",
    "architectures": ["StableDiffusionSafetyChecker"], "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 768,
    "text_config": {"dropout": 0.0, "hidden_size": 768, "num_attention_heads": 12},
    "torch_dtype": "float32", "transformers_version": "4.37.2",
    "vision_config": {"dropout": 0.0, "hidden_size": 1024, "intermediate_size": 4096,
                      "model_type": "clip_vision_model", "num_attention_heads": 16,
                      "num_hidden_layers": 24, "patch_size": 14},
}
"""As the repository of Stable Diffusion 1.5 has it: facts about the network."""


def test_a_published_safety_checker_and_what_transformers_now_saves_are_one_architecture(tmp_path):
    CLIPConfig(**PUBLISHED_CHECKER).save_pretrained(tmp_path)
    new = json.loads((tmp_path / "config.json").read_text())
    assert len(new["vision_config"]) > len(PUBLISHED_CHECKER["vision_config"])

    found = normalize.architecture("safety_checker", PUBLISHED_CHECKER)

    assert found == normalize.architecture("safety_checker", new)
    assert found["config"]["projection_dim"] == 768
    assert found["config"]["vision_config"]["hidden_size"] == 1024
    assert "text_config" not in found["config"]


def test_the_oldest_safety_checkers_say_it_a_second_time():
    """transformers takes what `vision_config_dict` says before what `vision_config` says."""
    vision = PUBLISHED_CHECKER["vision_config"]
    oldest = PUBLISHED_CHECKER | {
        "vision_config_dict": vision, "vision_config": vision | {"num_beams": 1, "patch_size": 32},
    }

    assert normalize.architecture("safety_checker", oldest) == normalize.architecture(
        "safety_checker", PUBLISHED_CHECKER)
    assert CLIPConfig(**oldest).vision_config.patch_size == 14


def test_a_safety_checker_that_is_not_described_is_refused():
    with pytest.raises(SourceError, match=r"vision_config is \[1\], expected a JSON object"):
        normalize.architecture("safety_checker", PUBLISHED_CHECKER | {"vision_config": [1]})


def test_the_end_token_of_an_old_text_encoder_is_found_where_it_was(tmp_path):
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 1, "architectures": ["CLIPTextModel"], "vocab_size": 49408}
    ids = torch.tensor([[49406, 5, 6, 49407, 49407], [49406, 49405, 7, 8, 49407]])
    torch.manual_seed(1)
    old = CLIPTextModel(CLIPTextConfig(**small, eos_token_id=2)).eval()
    config = normalize.architecture("text_encoder", small | {"eos_token_id": 2})["config"]
    new = CLIPTextModel(CLIPTextConfig(**config)).eval()
    new.load_state_dict(old.state_dict())

    with torch.inference_mode():
        assert torch.equal(new(ids).pooler_output, old(ids).pooler_output)


def test_a_list_of_the_same_for_each_block_is_one_value():
    base = {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}

    found = normalize.architecture("unet", base | {"attention_head_dim": [8, 8, 8, 8],
                                              "layers_per_block": [2, 2, 2, 2]})

    assert found == normalize.architecture("unet", base)
    assert normalize.architecture("unet", base | {"attention_head_dim": [5, 10, 20, 20]}) != found


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": None}])
def test_a_config_without_a_network_is_refused(config):
    with pytest.raises(SourceError, match=r"unet/config\.json: it does not name a network"):
        normalize.architecture("unet", config)


def test_the_attention_of_an_old_autoencoder_gets_its_new_names_and_shape():
    old = "decoder.mid_block.attentions.0"

    found = {t.name: t.shape for t in normalize.tensors("vae", [
        tensor(f"{old}.query.weight", 8, 8, 1, 1), tensor(f"{old}.key.bias", 8),
        tensor(f"{old}.value.weight", 8, 8), tensor(f"{old}.proj_attn.weight", 8, 8, 1),
        tensor("quant_conv.weight", 8, 8, 1, 1),
    ])}

    assert found == {
        f"{old}.to_q.weight": (8, 8), f"{old}.to_k.bias": (8,), f"{old}.to_v.weight": (8, 8),
        f"{old}.to_out.0.weight": (8, 8), "quant_conv.weight": (8, 8, 1, 1),
    }


def test_the_names_of_a_text_encoder_are_those_of_its_files_and_positions_are_left_out():
    assert names(
        "text_encoder", "text_model.embeddings.position_ids", "embeddings.position_ids",
        "encoder.layers.0.mlp.fc1.bias", "text_model.final_layer_norm.bias",
    ) == ["text_model.encoder.layers.0.mlp.fc1.bias", "text_model.final_layer_norm.bias"]


def test_the_names_of_a_safety_checker_are_those_of_its_files_and_positions_are_left_out():
    assert names(
        "safety_checker", "vision_model.vision_model.embeddings.position_ids",
        "vision_model.vision_model.pre_layrnorm.bias", "vision_model.post_layernorm.bias",
        "visual_projection.weight", "concept_embeds",
    ) == ["vision_model.vision_model.pre_layrnorm.bias",
          "vision_model.vision_model.post_layernorm.bias", "visual_projection.weight",
          "concept_embeds"]


def test_two_tensors_that_come_to_one_name_are_refused(tmp_path):
    found = normalize.tensors("text_encoder", [
        tensor("final_layer_norm.bias", 1), tensor("text_model.final_layer_norm.bias", 1),
    ])

    with pytest.raises(SourceError, match=r"two tensors are for text_model\.final_"):
        tensors.write(tmp_path / "w.safetensors", found)
