"""Stable Diffusion 3 and 3.5: tiny checkpoints of their shapes, from the folder to a bundle."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from PIL import Image
from transformers import AutoTokenizer, T5EncoderModel

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import BundleError, RecipeError, SourceError
from sdbuild.base.filenames import contents
from sdbuild.bundle.contract import violations
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.places import opened
from sdbuild.bundle.request import Request
from sdbuild.checkpoints.normalized import ARCHITECTURE
from sdbuild.engine.stage import Job, stage
from sdbuild.families import FAMILIES
from sdbuild.recipe.recipe import load
from sdbuild.runtime import predictor as predictors
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.runtime.rng import numpy
from sdbuild.runtime.tokenizers import t5
from sdbuild.store.scan import files
from tests.families.references import (
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
WIDTH, HEIGHT = 192, 128
COMPONENTS = [c.name for c in FAMILIES["sd3"].components]
TIMESTEPS = (1000.0, 857.69, 602.15, 8.93)  # as hosts send them, with shift 3


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The folder of a checkpoint of a style, written when it is first asked for."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def place(style):
        if style not in made:
            made[style] = write_checkpoint(root / style, style)
        return made[style]
    return place


@pytest.fixture(scope="module")
def variant(places, tmp_path_factory):
    """The steps of a variant of a recipe for a style's checkpoint; all share what they can."""
    folder = tmp_path_factory.mktemp("steps")

    def steps(style="sd3.5-medium", components=COMPONENTS, **words):
        path = folder / f"tiny-{style.replace('.', '-')}.toml"
        path.write_text(f'family = "sd3"\nsource = "{places(style)}"\nsize = "{WIDTH}x{HEIGHT}"\n'
                        f'components = {json.dumps(components)}\ncompiler = "portable"\n')
        return Steps(load({"model": str(path)} | words), folder)
    return steps


@pytest.mark.parametrize("style", [
    "sd3.5-medium", pytest.param("sd3.5-large", marks=pytest.mark.slow)])
def test_the_transformer_predicts_diffusers_velocity_at_every_timestep(places, variant, style):
    """A picture that is no square shows that the positions are those of its rows and columns."""
    compiled = variant(style)["compile:transformer"]

    for inputs, wanted in transformer_cases(places(style), WIDTH, HEIGHT, TIMESTEPS):
        found = predicted(compiled, inputs)
        assert found.keys() == {"denoiser_output"}
        assert psnr(found["denoiser_output"], wanted.numpy()) >= 65


@pytest.mark.slow
def test_the_transformer_without_norms_of_queries_errs_at_most_twice_as_torch_in_fp16(
    places, variant,
):
    """Random weights without these norms amplify what is rounded, in every implementation."""
    compiled = variant("sd3")["compile:transformer"]
    halved = SD3Transformer2DModel.from_pretrained(places("sd3") / "transformer").eval().half()

    for inputs, wanted in transformer_cases(places("sd3"), WIDTH, HEIGHT, TIMESTEPS):
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
    places, variant, component, trained, by_host,
):
    wanted = xl_embeddings(places("sd3.5-medium"), component, trained)

    compiled = variant()[f"compile:{component}"]
    found = joined([predicted(compiled, {"input_ids": ids}) for ids in prompts(by_host)])

    assert found.keys() == wanted.keys()
    assert min(psnr(found[name], wanted[name].numpy()) for name in wanted) >= 65


def test_t5_gives_the_embeddings_of_transformers_whatever_mask_it_is_sent(places, variant):
    """diffusers sends none; Apple's Swift package sends 1 for padding and 0 for words."""
    net = T5EncoderModel.from_pretrained(places("sd3.5-medium") / "text_encoder_3").eval()
    ids = torch.randint(3, 320, (1, 77), generator=torch.Generator().manual_seed(1))
    ids[0, 30:] = torch.tensor([1, *[0] * 46])
    with torch.inference_mode():
        wanted = net(ids)[0].transpose(1, 2)[:, :, None].numpy()

    compiled = variant()["compile:text_encoder_3"]
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
    places, variant, component,
):
    inputs, wanted = vae_cases(places("sd3.5-medium"), WIDTH, HEIGHT)[component]

    [found] = predicted(variant()[f"compile:{component}"], inputs).values()

    assert psnr(found, wanted.numpy()) >= 65


@pytest.mark.parametrize("component", [
    pytest.param("transformer", marks=pytest.mark.slow), "text_encoder_3"])
def test_what_is_lowered_once_is_what_coremltools_converts_directly_byte_for_byte(
    variant, component,
):
    once, direct = (variant(**words)[f"convert:{component}"] for words in ({}, {"lower": "direct"}))

    digests = [{p.relative_to(folder).as_posix(): digest_file(p) for p in files(folder)
                if p.name != "weight.bin" or p.parent != folder} for folder in (once, direct)]
    assert digests[0] == digests[1]


def test_another_checkpoint_of_the_architecture_is_bound_to_the_same_program(variant, tmp_path):
    """The positions and the bias that are computed from its tensors are its own."""
    first, other = variant(), write_checkpoint(tmp_path / "other", "sd3.5-medium", seed=2)
    recipe = tmp_path / "other.toml"
    recipe.write_text(f'family = "sd3"\nsource = "{other}"\nsize = "{WIDTH}x{HEIGHT}"\n'
                      f'components = {json.dumps(COMPONENTS)}\ncompiler = "portable"\n')
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


def test_a_bundle_with_the_transformer_in_chunks_draws_as_with_the_whole_one(variant):
    """Hosts load it whole, of which the build warns; `generate` runs the chunks."""
    request = Request(prompt="a red fox", negative="", guidance=4.5, steps=2, seed=3, count=1,
                      scheduler="flow_euler")
    whole, halves = (variant(quant="8", palettize="transformer", chunk=chunk)["bundle"]
                     for chunk in "12")

    broken = [(each.rule, each.level) for each in violations(halves) if "transformer" in each.rule]
    pictures = [next(iter(Pipeline(load_bundle(folder), "portable").draw(request))).image
                for folder in (whole, halves)]
    assert ("the_transformer_is_whole", "warning") in broken
    assert ("the_transformer_is_whole", "warning") not in [
        (each.rule, each.level) for each in violations(whole)]
    assert len(load_bundle(halves).models["transformer"]) == 2
    assert picture_db(*pictures) >= 50


def test_a_bundle_has_what_hosts_look_for(variant):
    bundle = variant(quant="4")["bundle"]

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


def test_ports_are_those_that_hosts_send_and_read(variant):
    def ports(name):
        folder = variant()["bundle"] / f"{name}.mlmodelc"
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
    places, variant, prompt,
):
    own = AutoTokenizer.from_pretrained(places("sd3.5-medium") / "tokenizer_3")
    wanted = own(prompt, padding="max_length", max_length=77, truncation=True).input_ids

    found = t5.load(variant()["bundle"] / "tokenizer.json").ids(prompt, 77)

    assert found == wanted


def test_a_prompt_that_is_too_long_for_t5_keeps_its_end_token(places, variant):
    own = AutoTokenizer.from_pretrained(places("sd3.5-medium") / "tokenizer_3")
    prompt = "a red fox and a dog " * 9
    tokenizer = t5.load(variant()["bundle"] / "tokenizer.json")

    assert tokenizer.ids(prompt, 77) == own(
        prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert prompt.strip().endswith(tokenizer.truncated(prompt, 77))


@pytest.mark.parametrize(("components", "negative", "guidance"), [
    (COMPONENTS, "a dog", 4.5),
    ([c for c in COMPONENTS if c != "text_encoder_3"], "", 4.5),
    pytest.param([c for c in COMPONENTS if c != "text_encoder_3"], "", 1.0,
                 marks=pytest.mark.slow),
])
def test_the_bundle_draws_the_image_that_diffusers_draws_with_the_checkpoint(
    places, variant, components, negative, guidance,
):
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, places, components)

    wanted = pipeline(
        "a red fox", negative_prompt=negative, guidance_scale=guidance, num_inference_steps=4,
        width=WIDTH, height=HEIGHT, max_sequence_length=77,
        generator=torch.Generator().manual_seed(3)).images[0]
    bundle = load_bundle(variant(components=components)["bundle"])
    [found] = Pipeline(bundle, "portable").draw(Request(
        prompt="a red fox", negative=negative, guidance=guidance, steps=4, seed=3, count=1,
        scheduler="flow_euler"))

    assert picture_db(found.image, wanted) >= 50


def test_a_schedule_that_depends_on_the_size_of_the_picture_is_that_of_diffusers(places, variant):
    """Apple's Swift package has one of its own."""
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, places, COMPONENTS)
    config = {**pipeline.scheduler.config, "use_dynamic_shifting": True, "base_shift": 0.3,
              "max_shift": 2.5, "base_image_seq_len": 64}
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    bundle = replace(load_bundle(variant()["bundle"]), scheduler=config)
    request = Request(prompt="a red fox", negative="", guidance=4.5, steps=3, seed=3, count=1,
                      scheduler="flow_euler")

    wanted = pipeline(
        "a red fox", negative_prompt="", guidance_scale=4.5, num_inference_steps=3,
        width=WIDTH, height=HEIGHT, max_sequence_length=77,
        generator=torch.Generator().manual_seed(3)).images[0]
    [found] = Pipeline(bundle, "portable").draw(request)

    assert picture_db(found.image, wanted) >= 50
    with pytest.raises(BundleError, match="use_dynamic_shifting"):
        [*Pipeline(bundle, "portable").draw(replace(request, scheduler="flow_heun"))]


def test_a_bundle_draws_as_the_swift_package_does_from_its_noise(places, variant):
    """The package's scheduler for this family is its own, and it guides at a scale of 1 too."""
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, places, COMPONENTS)
    noise = torch.from_numpy(numpy.Stream(3).array((1, 16, HEIGHT // 8, WIDTH // 8)).astype("f4"))

    wanted = pipeline("a red fox", negative_prompt="", guidance_scale=2.0, latents=noise,
                      num_inference_steps=3, width=WIDTH, height=HEIGHT,
                      max_sequence_length=77).images[0]
    [found] = Pipeline(load_bundle(variant()["bundle"]), "portable").draw(Request(
        prompt="a red fox", negative="", guidance=2.0, steps=3, seed=3, count=1, host="swift",
        scheduler="flow_euler"))

    assert picture_db(found.image, wanted) >= 50


def test_a_bundle_without_a_manifest_draws_as_with_it(variant, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(variant()["bundle"], folder)
    (folder / "manifest.json").unlink()
    request = Request(prompt="a red fox", negative="", guidance=2.0, steps=1, seed=3, count=1,
                      scheduler="flow_euler")

    with opened(folder) as (bundle, notes):
        [found] = Pipeline(bundle, "portable").draw(request)
    [wanted] = Pipeline(load_bundle(variant()["bundle"]), "portable").draw(request)

    assert (np.asarray(found.image) == np.asarray(wanted.image)).all()
    assert "family=sd3, 192x128 pixels and original are inferred from the transformer" in notes
    assert "with shift 3, and that the transformer predicts a flow" in "\n".join(notes)


def test_the_bundle_begins_with_an_image_as_diffusers_does(places, variant, tmp_path):
    pipeline = diffusers_pipeline(StableDiffusion3Img2ImgPipeline, places, COMPONENTS)
    pixels = np.random.default_rng(2).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    image = Image.fromarray(pixels).resize((WIDTH, HEIGHT))
    image.save(tmp_path / "image.png")

    wanted = pipeline(
        "a red fox", image=image, strength=0.5, guidance_scale=4.5, num_inference_steps=5,
        width=WIDTH, height=HEIGHT, max_sequence_length=77,
        generator=torch.Generator().manual_seed(3)).images[0]
    [found] = Pipeline(load_bundle(variant()["bundle"]), "portable").draw(Request(
        prompt="a red fox", negative="", guidance=4.5, steps=5, seed=3, count=1,
        scheduler="flow_euler", image=str(tmp_path / "image.png"), strength=0.5))

    assert found.steps == 3
    assert picture_db(found.image, wanted) >= 50


def test_a_picture_larger_than_the_table_of_positions_is_refused(variant):
    steps = variant("sd3", size="256x64")

    with pytest.raises(SourceError, match="size=256x64, expected at most 192 on a side"):
        steps["trace:transformer"]


def test_a_batch_that_no_host_sends_is_refused(variant):
    with pytest.raises(RecipeError, match="batch=1 for Stable Diffusion 3, expected 2"):
        variant(batch="1")


def test_a_layout_of_attention_that_the_transformer_does_not_have_is_refused(variant):
    """The bundle's name would tell one that it does not have."""
    with pytest.raises(RecipeError, match="attention=split_einsum for Stable Diffusion 3, expected "
                                          "original"):
        variant(attention="split_einsum")


def diffusers_pipeline(kind, places, components):
    """diffusers' own pipeline of the checkpoint, with T5 if it is among the components."""
    without = {} if "text_encoder_3" in components else {
        "text_encoder_3": None, "tokenizer_3": None}
    pipeline = kind.from_pretrained(places("sd3.5-medium"), **without)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture_db(found, wanted):
    """In dB, of 255 levels."""
    error = np.mean((np.asarray(found, float) - np.asarray(wanted, float)) ** 2)
    return 10 * np.log10(255**2 / error)
