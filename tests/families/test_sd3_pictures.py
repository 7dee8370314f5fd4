"""Pictures of Stable Diffusion 3 and 3.5, from bundles of tiny checkpoints of their shapes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from PIL import Image

from sdbuild.base.errors import BundleError, SourceError
from sdbuild.bundle.contract import violations
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.places import opened
from sdbuild.bundle.request import Request
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.runtime.rng import numpy
from tests.families.references import (
    SD3_COMPONENTS,
    SD3_SIZE,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export
WIDTH, HEIGHT = SD3_SIZE
TIMESTEPS = (1000.0, 857.69, 602.15, 8.93)  # as hosts send them, with shift 3


@pytest.mark.parametrize(("components", "negative", "guidance"), [
    (SD3_COMPONENTS, "a dog", 4.5),
    ([c for c in SD3_COMPONENTS if c != "text_encoder_3"], "", 4.5),
    pytest.param([c for c in SD3_COMPONENTS if c != "text_encoder_3"], "", 1.0,
                 marks=pytest.mark.slow),
])
def test_the_bundle_draws_the_image_that_diffusers_draws_with_the_checkpoint(
    sd3_places, sd3_variant, components, negative, guidance,
):
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, sd3_places, components)

    wanted = pipeline(
        "a red fox", negative_prompt=negative, guidance_scale=guidance, num_inference_steps=4,
        width=WIDTH, height=HEIGHT, max_sequence_length=77,
        generator=torch.Generator().manual_seed(3)).images[0]
    bundle = load_bundle(sd3_variant(components=components)["bundle"])
    [found] = Pipeline(bundle, "portable").draw(Request(
        prompt="a red fox", negative=negative, guidance=guidance, steps=4, seed=3, count=1,
        scheduler="flow_euler"))

    assert picture_db(found.image, wanted) >= 50


def test_a_bundle_with_the_transformer_in_chunks_draws_as_with_the_whole_one(sd3_variant):
    """Hosts load it whole, of which the build warns; `generate` runs the chunks."""
    request = Request(prompt="a red fox", negative="", guidance=4.5, steps=2, seed=3, count=1,
                      scheduler="flow_euler")
    whole, halves = (sd3_variant(quant="8", palettize="transformer", chunk=chunk)["bundle"]
                     for chunk in "12")

    broken = [(each.rule, each.level) for each in violations(halves) if "transformer" in each.rule]
    pictures = [next(iter(Pipeline(load_bundle(folder), "portable").draw(request))).image
                for folder in (whole, halves)]
    assert ("the_transformer_is_whole", "warning") in broken
    assert ("the_transformer_is_whole", "warning") not in [
        (each.rule, each.level) for each in violations(whole)]
    assert len(load_bundle(halves).models["transformer"]) == 2
    assert picture_db(*pictures) >= 50


def test_a_schedule_that_depends_on_the_size_of_the_picture_is_that_of_diffusers(
    sd3_places, sd3_variant,
):
    """Apple's Swift package has one of its own."""
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, sd3_places, SD3_COMPONENTS)
    config = {**pipeline.scheduler.config, "use_dynamic_shifting": True, "base_shift": 0.3,
              "max_shift": 2.5, "base_image_seq_len": 64}
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    bundle = replace(load_bundle(sd3_variant()["bundle"]), scheduler=config)
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


def test_a_bundle_draws_as_the_swift_package_does_from_its_noise(sd3_places, sd3_variant):
    """The package's scheduler for this family is its own, and it guides at a scale of 1 too."""
    pipeline = diffusers_pipeline(StableDiffusion3Pipeline, sd3_places, SD3_COMPONENTS)
    noise = torch.from_numpy(numpy.Stream(3).array((1, 16, HEIGHT // 8, WIDTH // 8)).astype("f4"))

    wanted = pipeline("a red fox", negative_prompt="", guidance_scale=2.0, latents=noise,
                      num_inference_steps=3, width=WIDTH, height=HEIGHT,
                      max_sequence_length=77).images[0]
    [found] = Pipeline(load_bundle(sd3_variant()["bundle"]), "portable").draw(Request(
        prompt="a red fox", negative="", guidance=2.0, steps=3, seed=3, count=1, host="swift",
        scheduler="flow_euler"))

    assert picture_db(found.image, wanted) >= 50


def test_a_bundle_without_a_manifest_draws_as_with_it(sd3_variant, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(sd3_variant()["bundle"], folder)
    (folder / "manifest.json").unlink()
    request = Request(prompt="a red fox", negative="", guidance=2.0, steps=1, seed=3, count=1,
                      scheduler="flow_euler")

    with opened(folder) as (bundle, notes):
        [found] = Pipeline(bundle, "portable").draw(request)
    [wanted] = Pipeline(load_bundle(sd3_variant()["bundle"]), "portable").draw(request)

    assert (np.asarray(found.image) == np.asarray(wanted.image)).all()
    assert "family=sd3, 192x128 pixels and original are inferred from the transformer" in notes
    assert "with shift 3, and that the transformer predicts a flow" in "\n".join(notes)


def test_the_bundle_begins_with_an_image_as_diffusers_does(sd3_places, sd3_variant, tmp_path):
    pipeline = diffusers_pipeline(StableDiffusion3Img2ImgPipeline, sd3_places, SD3_COMPONENTS)
    pixels = np.random.default_rng(2).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    image = Image.fromarray(pixels).resize((WIDTH, HEIGHT))
    image.save(tmp_path / "image.png")

    wanted = pipeline(
        "a red fox", image=image, strength=0.5, guidance_scale=4.5, num_inference_steps=5,
        width=WIDTH, height=HEIGHT, max_sequence_length=77,
        generator=torch.Generator().manual_seed(3)).images[0]
    [found] = Pipeline(load_bundle(sd3_variant()["bundle"]), "portable").draw(Request(
        prompt="a red fox", negative="", guidance=4.5, steps=5, seed=3, count=1,
        scheduler="flow_euler", image=str(tmp_path / "image.png"), strength=0.5))

    assert found.steps == 3
    assert picture_db(found.image, wanted) >= 50


def test_a_picture_larger_than_the_table_of_positions_is_refused(sd3_variant):
    steps = sd3_variant("sd3", size="256x64")

    with pytest.raises(SourceError, match="size=256x64, expected at most 192 on a side"):
        steps["trace:transformer"]


def diffusers_pipeline(kind, sd3_places, components):
    """diffusers' own pipeline of the checkpoint, with T5 if it is among the components."""
    without = {} if "text_encoder_3" in components else {
        "text_encoder_3": None, "tokenizer_3": None}
    pipeline = kind.from_pretrained(sd3_places("sd3.5-medium"), **without)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture_db(found, wanted):
    """In dB, of 255 levels."""
    error = np.mean((np.asarray(found, float) - np.asarray(wanted, float)) ** 2)
    return 10 * np.log10(255**2 / error)
