"""Files and folders that people reported other tools to stumble over; each names where."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize, open_checkpoint
from tests.checkpoints.test_single_file import download
from tests.loras import factors, kohya, merge, save
from tests.single_files import SMALL_VAE, write
from tests.xl_files import (
    UNETS,
    small_controlnet,
    small_xl,
    text_encoder_2,
    xl_file,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_xl(tmp_path_factory.mktemp("base") / "folder", "base")


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    return small_xl(tmp_path_factory.mktemp("refiner") / "folder", "refiner")


def test_a_projection_that_is_a_linear_layer_is_not_transposed(base, tmp_path):
    """diffusers' script back to one file wrote it so: huggingface/diffusers issue 6934."""
    folder, states = base
    tensors = xl_file(folder, states)
    del tensors["conditioner.embedders.1.model.text_projection"]
    name = "conditioner.embedders.1.model.text_projection.weight"
    tensors[name] = states["text_encoder_2"]["text_projection.weight"]
    file = write(tmp_path / "a.safetensors", tensors)

    made = download(file, tmp_path / "1", "text_encoder_2", family="sdxl")

    assert made == download(folder, tmp_path / "2", "text_encoder_2", family="sdxl")


def test_a_second_text_encoder_without_its_projection_is_refused(base, tmp_path):
    """Others crash with a KeyError: kijai/ComfyUI-SUPIR issue 81."""
    tensors = xl_file(*base)
    del tensors["conditioner.embedders.1.model.text_projection"]
    file = write(tmp_path / "a.safetensors", tensors)

    with pytest.raises(SourceError, match=r"it lacks text_projection\.weight") as error:
        download(file, tmp_path / "out", "text_encoder_2", family="sdxl")
    assert str(file) in error.value.message


def test_the_trained_projection_of_a_lora_is_merged(tmp_path):
    """Other programs do not know OneTrainer's key: Nerogar/OneTrainer issue 47."""
    torch.manual_seed(1)
    network = text_encoder_2()
    state = network.state_dict()
    [(layer, (down, up))] = factors(network, ["text_projection"], 4).items()
    file = save(tmp_path / "l.safetensors", kohya({layer: (down, up)}, 2, "lora_te2_"))
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({n: t.contiguous() for n, t in state.items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text("{}")

    made, facts = merge(folder, tmp_path / "out", [(file, 0.5)], "text_encoder_2")

    wanted = state["text_projection.weight"] + 0.5 * 2 / 4 * up.weight @ down.weight
    torch.testing.assert_close(made["text_projection.weight"], wanted.detach())
    assert facts == {"merged": [1], "ignored": [], "tensors": facts["tensors"]}


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_u_net_in_shards_is_read(base, tmp_path, variant):
    """As diffusers cuts XL's of fp32, which is larger than 10 GB: apple/ml-stable-diffusion
    issue 377."""
    folder, states = base
    network = UNet2DConditionModel(**UNETS["base"]).half()
    network.load_state_dict(states["unet"])
    network.save_pretrained(tmp_path / "cut/unet", max_shard_size="8MB", variant=variant)
    assert len(list((tmp_path / "cut/unet").glob("*.safetensors"))) > 2

    made = download(tmp_path / "cut", tmp_path / "1", "unet", family="sdxl")

    assert made == download(folder, tmp_path / "2", "unet", family="sdxl")


@pytest.mark.parametrize("half", [("decoder.", "post_quant_conv."), ("encoder.", "quant_conv.")],
                         ids=["decoder", "encoder"])
def test_both_halves_of_an_autoencoder_for_fp16_say_so(tmp_path, half):
    """Elsewhere the encoder stays in fp32: apple/ml-stable-diffusion issue 304."""
    AutoencoderKL(**SMALL_VAE, scaling_factor=0.13025, force_upcast=False).save_pretrained(
        tmp_path / "vae")

    made = download(tmp_path / "vae", tmp_path / "out", "vae", half, family="sdxl")

    assert json.loads(made["architecture.json"])["force_upcast"] is False
    assert json.loads(made["latents.json"]) == {"scaling_factor": 0.13025}


@pytest.mark.parametrize("kind", ["base", "lcm"])
def test_a_u_net_alone_by_diffusers_names_needs_no_config(tmp_path, kind):
    """diffusers takes it for Stable Diffusion 1: huggingface/diffusers issue 11033. Few-step
    U-Nets (Lightning) come so."""
    torch.manual_seed(2)
    network = UNet2DConditionModel(**UNETS[kind]).half()
    network.save_pretrained(tmp_path / "folder/unet")
    file = tmp_path / "sdxl_lightning_4step_unet.safetensors"
    (tmp_path / "folder/unet/diffusion_pytorch_model.safetensors").rename(file)

    checkpoint = open_checkpoint([str(file)], {})
    with torch.device("meta"):
        again = UNet2DConditionModel.from_config(checkpoint.config("unet"))

    wanted = {n: v for n, v in network.config.items() if not n.startswith("_")}
    assert {n: again.config[n] for n in wanted} == {
        n: list(v) if isinstance(v, tuple) else v for n, v in wanted.items()}
    assert checkpoint.tensors("unet").keys() == network.state_dict().keys()
    assert json.loads(checkpoint.resources()["tokenizer_2/special_tokens_map.json"]) == {
        "pad_token": "!"}


def test_a_refiner_has_one_text_encoder_and_one_tokenizer(refiner, tmp_path):
    """Programs expect two of each: vladmandic/sdnext issue 2286, huggingface/optimum pull request
    2133."""
    folder, _ = refiner
    checkpoint = open_checkpoint([str(folder)], {})

    made = download(folder, tmp_path / "out", "resources", family="sdxl-refiner")

    assert json.loads(made["special_tokens_map.json"]) == {"pad_token": "!"}
    assert {"vocab.json", "merges.txt", "scheduler_config.json"} <= made.keys()
    assert [part for part in ("text_encoder", "text_encoder_2") if checkpoint.has(part)] == [
        "text_encoder_2"]
    with pytest.raises(SourceError, match="no text_encoder, only scheduler, text_encoder_2"):
        checkpoint.config("text_encoder")


def test_a_bundle_of_xl_has_the_first_tokenizer_and_tells_the_second_ones_padding(base, tmp_path):
    """A host pads both alike; the second text encoder was trained on `!`:
    huggingface/diffusers issue 4236 has the same of the refiner."""
    folder, _ = base

    made = download(folder, tmp_path / "1", "resources", family="sdxl")

    assert json.loads(made["special_tokens_map.json"]) == {"pad_token": "<|endoftext|>"}
    checkpoint = open_checkpoint([str(folder)], {})
    found = [normalize.architecture_of(checkpoint, reads, {"family": "sdxl"}).get("padding")
             for reads in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))]
    assert found == [None, {"end_token_id": 49407, "pad_token_id": 0}]


def test_two_different_tokenizers_are_refused_before_any_step(base, tmp_path):
    folder, _ = base
    for part in ("scheduler", "tokenizer", "tokenizer_2"):
        shutil.copytree(folder / part, tmp_path / part)
    (tmp_path / "tokenizer_2/merges.txt").write_text("#version: 0.2\na b</w>\n")

    with pytest.raises(SourceError, match=r"tokenizer_2/merges\.txt: it differs from"):
        normalize.check(open_checkpoint([str(tmp_path)], {}), ["resources"], {})


SMALL = {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D",
         "transformer_layers_per_block": 1}


def test_a_small_controlnet_has_no_attentions_and_is_read_with_its_config(tmp_path):
    """Those of XL come in three sizes: huggingface/diffusers issue 5577."""
    folder, state, _ = small_controlnet(tmp_path / "folder", **SMALL)
    file = write(tmp_path / "a.safetensors", state)

    with pytest.raises(SourceError, match="has no attentions, as the small ones of XL") as error:
        download(file, tmp_path / "0", "controlnet", family="sdxl")
    assert "controlnet=FOLDER" in error.value.hint

    download(folder / "controlnet", tmp_path / "1", "controlnet", family="sdxl")

    made = load_file(tmp_path / "1" / "weights.safetensors")
    assert made.keys() == state.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in state.items())


def test_a_controlnet_alone_in_a_folder_is_read(tmp_path):
    """So repositories of ControlNets are: huggingface/diffusers issue 9208."""
    folder, state, _ = small_controlnet(tmp_path / "folder")

    made = download(folder / "controlnet", tmp_path / "1", "controlnet", family="sdxl")

    found = load_file(tmp_path / "1" / "weights.safetensors")
    assert found.keys() == state.keys()
    network = ControlNetModel.from_pretrained(folder / "controlnet", torch_dtype=torch.float16)
    assert all(torch.equal(found[n], t) for n, t in network.state_dict().items())
    assert made.keys() == {"architecture.json", "weights.safetensors"}


@pytest.mark.parametrize("family, names", [
    ("sd", "it is of Stable Diffusion XL"), ("sdxl", "are those of"),
])
def test_a_controlnet_of_another_family_is_refused(tmp_path, family, names):
    """The residuals of XL's are other in number: AUTOMATIC1111's extension crashes,
    Mikubill/sd-webui-controlnet issue 2155."""
    changes = {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}
    folder, _, _ = small_controlnet(tmp_path / "folder", **changes if family == "sdxl" else {})

    with pytest.raises(SourceError, match=names):
        download(folder, tmp_path / "out", "controlnet", family=family)


def test_a_model_with_another_schedule_of_noise_is_refused_in_either_form(base, tmp_path):
    """Playground 2.5 has the architecture of XL and other latents: leejet/stable-diffusion.cpp
    issue 321."""
    file = write(tmp_path / "a.safetensors", xl_file(*base) | {
        "edm_mean": torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)})
    config = json.loads((base[0] / "vae/config.json").read_text()) | {"latents_mean": [0.0] * 4}

    with pytest.raises(SourceError, match="another schedule of noise"):
        download(file, tmp_path / "out", "unet", family="sdxl")
    with pytest.raises(SourceError, match=r"latents_mean is .*: its latents are shifted"):
        normalize.architecture("vae", config, "sdxl")
