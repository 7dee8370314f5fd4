"""Stable Diffusion XL: a tiny checkpoint of its true shape, from its folder to a bundle."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import contents
from sdbuild.checkpoints.normalized import Architecture
from sdbuild.families import FAMILIES
from sdbuild.models import network
from sdbuild.recipe.recipe import load
from sdbuild.store.scan import files
from tests.families.references import (
    joined,
    predicted,
    prompts,
    psnr,
    unet_cases,
    vae_cases,
    xl_embeddings,
)
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export
TIME_IDS = [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]
COMPONENTS = [c.name for c in FAMILIES["sdxl"].components if not c.comes_with]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("sdxl"), "sdxl")


@pytest.fixture(scope="module")
def recipe_file(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny-xl.toml"
    path.write_text(f'family = "sdxl"\nsource = "{checkpoint}"\nsize = 128\n'
                    f'components = {json.dumps(COMPONENTS)}\ncompiler = "portable"\n')
    return path


@pytest.fixture(scope="module")
def variant(recipe_file, tmp_path_factory):
    """The steps of a variant of the recipe."""
    folder = tmp_path_factory.mktemp("steps")
    return lambda **words: Steps(load({"model": str(recipe_file)} | words), folder)


@pytest.mark.parametrize(("component", "trained", "by_host"), [
    ("text_encoder", 49407, 49407), ("text_encoder_2", 0, 0), ("text_encoder_2", 0, 49407),
])
def test_text_encoders_give_the_embeddings_of_transformers_whichever_way_hosts_pad(
    checkpoint, variant, component, trained, by_host,
):
    wanted = xl_embeddings(checkpoint, component, trained)

    compiled = variant()[f"compile:{component}"]
    found = joined([predicted(compiled, {"input_ids": ids}) for ids in prompts(by_host)])

    assert found.keys() == wanted.keys()
    assert min(psnr(found[name], wanted[name].numpy()) for name in wanted) >= 65


@pytest.mark.parametrize(("attention", "floor_db"), [
    ("original", 65),
    pytest.param("split_einsum", 62, marks=pytest.mark.slow),
])
def test_the_unet_predicts_diffusers_noise_at_every_timestep(
    checkpoint, variant, attention, floor_db,
):
    compiled = variant(attention=attention)["compile:unet"]

    for inputs, wanted in unet_cases(checkpoint, time_ids=TIME_IDS):
        found = predicted(compiled, inputs)
        assert found.keys() == {"noise_pred"}
        assert psnr(found["noise_pred"], wanted.numpy()) >= floor_db


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
def test_the_autoencoder_computes_in_fp32(checkpoint, variant, component):
    inputs, wanted = vae_cases(checkpoint)[component]

    [found] = predicted(variant()[f"compile:{component}"], inputs).values()

    assert psnr(found, wanted.numpy()) >= 80


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
def test_an_autoencoder_that_fits_fp16_has_both_its_halves_in_it(component):
    """As people who gave Apple's converter one had the decoder alone."""
    found = [network.precision(FAMILIES[family].component(component), Architecture(
                class_name="AutoencoderKL", config={}, force_upcast=must))
             for family, must in (("sdxl", True), ("sdxl", False), ("sd", True))]

    assert found == ["fp32", "fp16", "fp16"]


@pytest.mark.parametrize("says", [True, False])
def test_an_autoencoder_past_the_range_of_fp16_is_right_in_fp32_and_says_if_it_need_not_be(
    tmp_path, says,
):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "sdxl", vae={"force_upcast": says})
    file = checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        tensors[name] = tensors[name] * 1e5
    save_file(tensors, file)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'family = "sdxl"\nsource = "{checkpoint}"\nsize = 128\n'
                      'components = ["vae_decoder"]\ncompiler = "portable"\n')
    inputs, wanted = vae_cases(checkpoint)["vae_decoder"]

    compiled = Steps(load({"model": str(recipe)}), tmp_path)["compile:vae_decoder"]
    image = predicted(compiled, inputs)["image"]

    if says:
        assert psnr(image, wanted.numpy()) >= 80
    else:
        assert not np.isfinite(image).all()


@pytest.mark.parametrize("component", [
    pytest.param(name, marks=pytest.mark.slow if name == "unet" else ()) for name in COMPONENTS])
def test_what_is_lowered_once_is_what_coremltools_converts_directly_byte_for_byte(
    variant, component,
):
    once, direct = (variant(**words)[f"convert:{component}"] for words in ({}, {"lower": "direct"}))

    digests = [{p.relative_to(folder).as_posix(): digest_file(p) for p in files(folder)
                if p.name != "weight.bin" or p.parent != folder} for folder in (once, direct)]
    assert digests[0] == digests[1]


def test_a_bundle_has_what_hosts_look_for(variant):
    bundle = variant(quant="4", chunk="2")["bundle"]

    names = {path.name for path in contents(bundle)}
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert names >= {
        "TextEncoder.mlmodelc", "TextEncoder2.mlmodelc", "UnetChunk1.mlmodelc",
        "UnetChunk2.mlmodelc", "VAEDecoder.mlmodelc", "VAEEncoder.mlmodelc", "vocab.json",
        "merges.txt", "manifest.json",
    }
    assert (manifest["family"], manifest["scale_factor"]) == ("sdxl", 0.13025)
    bits = {name: entry["nbits"] for name, entry in manifest["components"].items()}
    assert bits == {"text_encoder": 4, "text_encoder_2": 4, "unet": 4, "vae_decoder": None,
                    "vae_encoder": None}


def test_ports_are_those_that_hosts_send_and_read(variant):
    def ports(name):
        folder = variant(quant="4", chunk="2")["bundle"] / f"{name}.mlmodelc"
        [found] = json.loads((folder / "metadata.json").read_text())
        return [{p["name"]: (p["dataType"], json.loads(p["shape"])) for p in found[side]}
                for side in ("inputSchema", "outputSchema")]

    taken, _ = ports("UnetChunk1")
    _, given = ports("UnetChunk2")
    assert taken == {
        "sample": ("Float16", [2, 4, 16, 16]), "timestep": ("Float16", [2]),
        "encoder_hidden_states": ("Float16", [2, 80, 1, 77]), "time_ids": ("Float16", [2, 6]),
        "text_embeds": ("Float16", [2, 40]),
    }
    assert given == {"noise_pred": ("Float32", [2, 4, 16, 16])}
    assert ports("TextEncoder2") == [
        {"input_ids": ("Float32", [1, 77])},
        {"hidden_embeds": ("Float32", [1, 77, 48]), "pooled_outputs": ("Float32", [1, 40])},
    ]


def test_a_batch_that_no_host_sends_is_refused(recipe_file):
    with pytest.raises(RecipeError, match="batch=1 for Stable Diffusion XL, expected 2"):
        load({"model": str(recipe_file), "batch": "1"})
