"""Stable Diffusion 3 and 3.5: tiny checkpoints of their shapes, from the folder to a bundle."""

import json

import pytest
import torch
from diffusers import (
    SD3Transformer2DModel,
)
from transformers import AutoTokenizer, T5EncoderModel

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import contents
from sdbuild.checkpoints.normalized import ARCHITECTURE
from sdbuild.engine.stage import Job, stage
from sdbuild.recipe.recipe import load
from sdbuild.runtime import predictor as predictors
from sdbuild.runtime.tokenizers import t5
from sdbuild.store.scan import files
from tests.families.references import (
    SD3_COMPONENTS,
    SD3_SIZE,
    joined,
    predicted,
    prompts,
    psnr,
    transformer_cases,
    vae_cases,
    xl_embeddings,
)
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export
WIDTH, HEIGHT = SD3_SIZE
TIMESTEPS = (1000.0, 857.69, 602.15, 8.93)  # as hosts send them, with shift 3


@pytest.mark.parametrize("style", [
    "sd3.5-medium", pytest.param("sd3.5-large", marks=pytest.mark.slow)])
def test_the_transformer_predicts_diffusers_velocity_at_every_timestep(
    sd3_places, sd3_variant, style,
):
    """A picture that is no square shows that the positions are those of its rows and columns."""
    compiled = sd3_variant(style)["compile:transformer"]

    for inputs, wanted in transformer_cases(sd3_places(style), WIDTH, HEIGHT, TIMESTEPS):
        found = predicted(compiled, inputs)
        assert found.keys() == {"denoiser_output"}
        assert psnr(found["denoiser_output"], wanted.numpy()) >= 65


@pytest.mark.slow
def test_the_transformer_without_norms_of_queries_errs_at_most_twice_as_torch_in_fp16(
    sd3_places, sd3_variant,
):
    """Random weights without these norms amplify what is rounded, in every implementation."""
    compiled = sd3_variant("sd3")["compile:transformer"]
    halved = SD3Transformer2DModel.from_pretrained(sd3_places("sd3") / "transformer").eval().half()

    for inputs, wanted in transformer_cases(sd3_places("sd3"), WIDTH, HEIGHT, TIMESTEPS):
        found = predicted(compiled, inputs)["denoiser_output"]
        with torch.inference_mode():
            by_torch = halved(
                inputs["latent_image_embeddings"].half(),
                inputs["token_level_text_embeddings"][:, :, 0].transpose(1, 2).half(),
                inputs["pooled_text_embeddings"][..., 0, 0].half(), inputs["timestep"],
            ).sample.float()
        assert psnr(found, wanted.numpy()) >= psnr(by_torch.numpy(), wanted.numpy()) - 6


@pytest.mark.parametrize(("component", "trained", "by_host"), [
    ("text_encoder", 49407, 49407), ("text_encoder_2", 0, 49407)])
def test_clips_give_the_embeddings_of_transformers_with_their_projections(
    sd3_places, sd3_variant, component, trained, by_host,
):
    wanted = xl_embeddings(sd3_places("sd3.5-medium"), component, trained)

    compiled = sd3_variant()[f"compile:{component}"]
    found = joined([predicted(compiled, {"input_ids": ids}) for ids in prompts(by_host)])

    assert found.keys() == wanted.keys()
    assert min(psnr(found[name], wanted[name].numpy()) for name in wanted) >= 65


def test_t5_gives_the_embeddings_of_transformers_whatever_mask_it_is_sent(sd3_places, sd3_variant):
    """diffusers sends none; Apple's Swift package sends 1 for padding and 0 for words."""
    net = T5EncoderModel.from_pretrained(sd3_places("sd3.5-medium") / "text_encoder_3").eval()
    ids = torch.randint(3, 320, (1, 77), generator=torch.Generator().manual_seed(1))
    ids[0, 30:] = torch.tensor([1, *[0] * 46])
    with torch.inference_mode():
        wanted = net(ids)[0].transpose(1, 2)[:, :, None].numpy()

    compiled = sd3_variant()["compile:text_encoder_3"]
    found = [predicted(compiled, {"input_ids": ids, "attention_mask": mask})
             for mask in (ids != 0, ids == 0)]

    assert all(each.keys() == {"encoder_hidden_states"} for each in found)
    assert min(psnr(each["encoder_hidden_states"], wanted) for each in found) >= 58


def test_t5_gives_them_too_where_its_sums_are_larger_than_fp16_holds(tmp_path):
    """Those of T5-XXL are, from its feed-forward layers."""
    place = write_checkpoint(tmp_path / "checkpoint", "sd3.5-medium")
    net = T5EncoderModel.from_pretrained(place / "text_encoder_3").eval()
    with torch.no_grad():
        for block in net.encoder.block:
            block.layer[1].DenseReluDense.wo.weight[:7] *= 1e4
            block.layer[1].DenseReluDense.wi_1.weight *= 30
    net.save_pretrained(place / "text_encoder_3")
    ids = torch.randint(3, 320, (1, 77), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = net(ids, output_hidden_states=True)
    wanted = found[0].transpose(1, 2)[:, :, None].numpy()
    recipe = tmp_path / "large.toml"
    recipe.write_text(f'family = "sd3"\nsource = "{place}"\nsize = 128\n'
                      'components = ["text_encoder_3"]\ncompiler = "portable"\n')

    compiled = Steps(load({"model": str(recipe)}), tmp_path)["compile:text_encoder_3"]
    said = predicted(compiled, {"input_ids": ids, "attention_mask": ids != 0})

    assert max(float(each.abs().max()) for each in found.hidden_states) > 2 * 65504
    assert psnr(said["encoder_hidden_states"], wanted) >= 58


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
def test_the_autoencoder_of_sixteen_channels_has_no_convolutions_around_its_latents(
    sd3_places, sd3_variant, component,
):
    inputs, wanted = vae_cases(sd3_places("sd3.5-medium"), WIDTH, HEIGHT)[component]

    [found] = predicted(sd3_variant()[f"compile:{component}"], inputs).values()

    assert psnr(found, wanted.numpy()) >= 65


@pytest.mark.parametrize("component", [
    pytest.param("transformer", marks=pytest.mark.slow), "text_encoder_3"])
def test_what_is_lowered_once_is_what_coremltools_converts_directly_byte_for_byte(
    sd3_variant, component,
):
    once, direct = (sd3_variant(**words)[f"convert:{component}"]
                    for words in ({}, {"lower": "direct"}))

    digests = [{p.relative_to(folder).as_posix(): digest_file(p) for p in files(folder)
                if p.name != "weight.bin" or p.parent != folder} for folder in (once, direct)]
    assert digests[0] == digests[1]


def test_another_checkpoint_of_the_architecture_is_bound_to_the_same_program(sd3_variant, tmp_path):
    """The positions and the bias that are computed from its tensors are its own."""
    first, other = sd3_variant(), write_checkpoint(tmp_path / "other", "sd3.5-medium", seed=2)
    recipe = tmp_path / "other.toml"
    recipe.write_text(f'family = "sd3"\nsource = "{other}"\nsize = "{WIDTH}x{HEIGHT}"\n'
                      f'components = {json.dumps(SD3_COMPONENTS)}\ncompiler = "portable"\n')
    second = Steps(load({"model": str(recipe)}), tmp_path)
    name = "transformer"

    step = second.plan.steps[f"convert:{name}"]
    stage("convert").run(Job(params=step.params, output=tmp_path, inputs={
        "lowered": first[f"lower:{name}"], "checkpoint": second[f"download:{name}"]}))
    predictor = predictors.load(contents(tmp_path, ".mlpackage"), "portable", "original")

    architectures = {(steps[f"download:{name}"] / ARCHITECTURE).read_bytes()
                     for steps in (first, second)}
    assert len(architectures) == 1
    for inputs, wanted in transformer_cases(other, WIDTH, HEIGHT, TIMESTEPS[:2]):
        found = predictor.predict({port: value.numpy() for port, value in inputs.items()})
        assert psnr(found["denoiser_output"], wanted.numpy()) >= 65


def test_a_bundle_has_what_hosts_look_for(sd3_variant):
    bundle = sd3_variant(quant="4")["bundle"]

    names = {path.name for path in contents(bundle)}
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert names >= {
        "TextEncoder.mlmodelc", "TextEncoder2.mlmodelc", "TextEncoderT5.mlmodelc",
        "MultiModalDiffusionTransformer.mlmodelc", "VAEDecoder.mlmodelc", "VAEEncoder.mlmodelc",
        "vocab.json", "merges.txt", "tokenizer.json",
        "tokenizer_config.json", "manifest.json",
    }
    assert (manifest["family"], manifest["scale_factor"], manifest["shift_factor"],
            manifest["prediction_type"]) == ("sd3", 1.5305, 0.0609, "flow_prediction")
    bits = {name: entry["nbits"] for name, entry in manifest["components"].items()}
    assert bits == {"text_encoder": 4, "text_encoder_2": 4, "text_encoder_3": 4, "transformer": 4,
                    "vae_decoder": None, "vae_encoder": None}


def test_ports_are_those_that_hosts_send_and_read(sd3_variant):
    def ports(name):
        folder = sd3_variant()["bundle"] / f"{name}.mlmodelc"
        [found] = json.loads((folder / "metadata.json").read_text())
        return [{p["name"]: (p["dataType"], json.loads(p["shape"])) for p in found[side]}
                for side in ("inputSchema", "outputSchema")]

    assert ports("MultiModalDiffusionTransformer") == [
        {"latent_image_embeddings": ("Float16", [2, 16, 16, 24]), "timestep": ("Float32", [2]),
         "token_level_text_embeddings": ("Float16", [2, 96, 1, 154]),
         "pooled_text_embeddings": ("Float16", [2, 72, 1, 1])},
        {"denoiser_output": ("Float32", [2, 16, 16, 24])},
    ]
    assert ports("TextEncoderT5") == [
        {"input_ids": ("Float32", [1, 77]), "attention_mask": ("Float32", [1, 77])},
        {"encoder_hidden_states": ("Float32", [1, 96, 1, 77])},
    ]


@pytest.mark.parametrize("prompt", [
    "a red fox", "", " ", "  two  spaces, and  a tail ", "A cat, sitting on the Mat.",
    "a red </s> fox", "狐 in the snow", "a\ttab\nand lines",
])
def test_t5s_tokens_are_those_of_transformers_in_the_form_that_hosts_read(
    sd3_places, sd3_variant, prompt,
):
    own = AutoTokenizer.from_pretrained(sd3_places("sd3.5-medium") / "tokenizer_3")
    wanted = own(prompt, padding="max_length", max_length=77, truncation=True).input_ids

    found = t5.load(sd3_variant()["bundle"] / "tokenizer.json").ids(prompt, 77)

    assert found == wanted


def test_a_prompt_that_is_too_long_for_t5_keeps_its_end_token(sd3_places, sd3_variant):
    own = AutoTokenizer.from_pretrained(sd3_places("sd3.5-medium") / "tokenizer_3")
    prompt = "a red fox and a dog " * 9
    tokenizer = t5.load(sd3_variant()["bundle"] / "tokenizer.json")

    assert tokenizer.ids(prompt, 77) == own(
        prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert prompt.strip().endswith(tokenizer.truncated(prompt, 77))


def test_a_batch_that_no_host_sends_is_refused(sd3_variant):
    with pytest.raises(RecipeError, match="batch=1 for Stable Diffusion 3, expected 2"):
        sd3_variant(batch="1")


def test_a_layout_of_attention_that_the_transformer_does_not_have_is_refused(sd3_variant):
    """The bundle's name would tell one that it does not have."""
    with pytest.raises(RecipeError, match="attention=split_einsum for Stable Diffusion 3, expected "
                                          "original"):
        sd3_variant(attention="split_einsum")
