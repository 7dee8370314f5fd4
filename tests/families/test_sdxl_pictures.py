"""Pictures of bundles of Stable Diffusion XL, beside those of diffusers' own pipelines."""

import json

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.recipe.recipe import load
from sdbuild.runtime.pipeline import Pipeline
from tests.families.references import END
from tests.inprocess import Steps
from tests.runtime.swift import psnr_db

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
BASE = ["text_encoder", "text_encoder_2", "unet", "vae_decoder"]
SIDE, SEED = 128, 3
GIVEN = {"num_inference_steps": 4, "guidance_scale": 5.0}


@pytest.fixture(scope="module")
def bundle(places, tmp_path_factory):
    """The fp16 bundle of some components."""
    folder = tmp_path_factory.mktemp("bundles")

    def made(*components, **words):
        file = folder / "xl.toml"
        file.write_text(f'family = "sdxl"\nsource = "{places["sdxl"]}"\nsize = {SIDE}\n'
                        f'components = {json.dumps(components)}\ncompiler = "portable"\n')
        return load_bundle(Steps(load({"model": str(file), "quant": "none"} | words),
                                 folder)["bundle"])
    return made


def from_checkpoint(kind, place, **more):
    pipeline = kind.from_pretrained(place, add_watermarker=False, **more)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def request(**more):
    return Request(**{"prompt": "a fox, digital art", "negative": "a dog", "seed": SEED,
                      "steps": 4, "guidance": 5.0, "scheduler": "euler", "count": 1, **more})


def generator():
    return torch.Generator().manual_seed(SEED)


@pytest.mark.parametrize("negative", ["a dog", ""])
def test_a_bundle_draws_what_diffusers_draws(places, bundle, negative):
    theirs = from_checkpoint(diffusers.StableDiffusionXLPipeline, places["sdxl"])

    wanted = theirs("a fox, digital art", negative_prompt=negative or None, width=SIDE,
                    height=SIDE, generator=generator(), **GIVEN).images[0]
    (found,) = Pipeline(bundle(*BASE)).draw(request(negative=negative))

    assert psnr_db(found.image, wanted) > 50


def test_a_learned_word_draws_what_diffusers_draws_of_its_embedding(places, bundle, tmp_path):
    rng, file = torch.Generator().manual_seed(0), tmp_path / "cat.safetensors"
    vectors = {"clip_l": torch.randn(2, 32, generator=rng) / 6,
               "clip_g": torch.randn(2, 48, generator=rng) / 7}
    save_file(vectors, file)
    theirs = from_checkpoint(diffusers.StableDiffusionXLPipeline, places["sdxl"])
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        theirs.load_textual_inversion(
            vectors[name], token="<cat-toy>", text_encoder=getattr(theirs, f"text_encoder{end}"),
            tokenizer=getattr(theirs, f"tokenizer{end}"))
    # The 2 of old configs has it pool at the largest number: the word's (transformers#24650).
    theirs.text_encoder_2.text_model.eos_token_id = END

    wanted = theirs("a <cat-toy>, digital art", negative_prompt="a dog", width=SIDE, height=SIDE,
                    generator=generator(), **GIVEN).images[0]
    made = bundle(*BASE, embedding=f"{file}:mycat")
    found, another = (next(Pipeline(made).draw(request(prompt=f"a {words}, digital art"))).image
                      for words in (" ".join(made.words[0]), "cat"))

    assert psnr_db(found, wanted) > 50
    assert psnr_db(another, wanted) < 40


def test_a_refiner_in_the_bundle_finishes_the_picture(places, bundle):
    """It shares the second text encoder with the base model, as the published ones do."""
    base = from_checkpoint(diffusers.StableDiffusionXLPipeline, places["sdxl"])
    refiner = from_checkpoint(
        diffusers.StableDiffusionXLImg2ImgPipeline, places["sdxl-refiner"],
        requires_aesthetics_score=True, vae=base.vae, text_encoder_2=base.text_encoder_2)

    latents = base("a fox, digital art", negative_prompt="a dog", width=SIDE, height=SIDE,
                   generator=generator(), output_type="latent", denoising_end=0.5,
                   **GIVEN).images
    wanted = refiner("a fox, digital art", negative_prompt="a dog", image=latents,
                     denoising_start=0.5, **GIVEN).images[0]
    both = bundle(*BASE, "refiner", refiner_source=str(places["sdxl-refiner"]))
    (found,) = Pipeline(both).draw(request(refiner=0.5))

    assert psnr_db(found.image, wanted) > 50
