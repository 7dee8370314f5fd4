"""Every scheduler that is offered, beside diffusers' own pipeline with the same noise."""

import diffusers
import pytest
import torch
from PIL import Image

from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import SCHEDULERS, SIGMAS, parts
from sdbuild.recipe.project import BUILT_IN
from sdbuild.runtime.pipeline import Pipeline
from tests.runtime.swift import PICTURES, psnr_db

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPT, NEGATIVE, SEED, STEPS, GUIDANCE = "a fox on a blue background", "a dog", 3, 5, 5.0
OFFERED = [name for name, scheduler in SCHEDULERS.items() if not scheduler.is_flow]
SPACED = [f"{name}_{sigmas}" for name in ("dpm", "euler", "unipc") for sigmas in SIGMAS]
QUICK = {"ddim", "euler_a", "dpm_karras"}


@pytest.fixture(scope="module")
def pipeline(built):
    return Pipeline(load_bundle(built.folder / "fp16"))


@pytest.fixture(scope="module")
def theirs():
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        BUILT_IN / "tiny-emoji", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, pipeline.scheduler.config


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*OFFERED, *SPACED)])
def test_a_scheduler_draws_what_it_draws_in_diffusers(pipeline, theirs, name):
    """The noise of ancestral and SDE schedulers is seeded too: it comes from the same generator."""
    original, config = theirs
    scheduler, sigmas = parts(name)
    original.scheduler = getattr(diffusers, scheduler.kind).from_config(
        config, **scheduler.config, **({SIGMAS[sigmas]: True} if sigmas else {}))

    wanted = original(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        width=128, height=128, generator=torch.Generator().manual_seed(SEED)).images[0]
    (result,) = pipeline.draw(Request(
        prompt=PROMPT, negative=NEGATIVE, steps=STEPS, guidance=GUIDANCE, seed=SEED,
        scheduler=name, count=1))

    assert psnr_db(result.image, wanted) > 50


@pytest.mark.parametrize("strength", [0.3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_an_image_is_drawn_anew_as_in_diffusers(pipeline, theirs, strength):
    start = PICTURES / "start.png"
    original, config = theirs
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(
        **original.components, requires_safety_checker=False)
    image_to_image.set_progress_bar_config(disable=True)
    image_to_image.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)

    wanted = image_to_image(
        PROMPT, Image.open(start).convert("RGB"), strength, num_inference_steps=10,
        guidance_scale=GUIDANCE, negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED)).images[0]
    (result,) = pipeline.draw(Request(
        prompt=PROMPT, negative=NEGATIVE, steps=10, guidance=GUIDANCE, seed=SEED,
        scheduler="euler", count=1, image=str(start), strength=strength))

    assert result.steps == int(10 * strength)
    assert psnr_db(result.image, wanted) > 50
