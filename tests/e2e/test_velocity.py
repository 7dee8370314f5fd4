"""A checkpoint like Stable Diffusion 2.1, which predicts velocity and pads with `!`, drawn by hosts
that know neither: the picture is that of diffusers, which knows both.
"""

import json
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from sdbuild.bundle.contract import require
from sdbuild.bundle.manifest import load_bundle
from sdbuild.recipe.recipe import load
from sdbuild.runtime import predictor
from sdbuild.runtime.pipeline import Pipeline
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WIDTH, HEIGHT = 72, 64  # nine columns of latents, which no halving divides
PROMPT, NEGATIVE, SEED, STEPS, GUIDANCE = "a red fox on a hill", "a dog", 3, 6, 5.0
RECIPE = f"""
family = "sd"
source = "checkpoint"
size = "{WIDTH}x{HEIGHT}"
components = ["text_encoder", "unet", "vae_decoder"]
chunk = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("velocity")
    write_checkpoint(folder / "checkpoint", "sd2")
    (folder / "like-sd-2-1.toml").write_text(RECIPE)
    return folder


def build(folder, **words):
    """The bundle of the checkpoint, and what was said of it."""
    made = Steps(load({"model": str(folder / "like-sd-2-1.toml"), **words}), folder)["bundle"]
    return load_bundle(made), [str(each) for each in require(made)]


def drawn(bundle, scheduler="ddim", guidance=GUIDANCE):
    request = replace(
        load({}).draw, prompt=PROMPT, negative=NEGATIVE, seed=SEED, steps=STEPS,
        guidance=guidance, scheduler=scheduler,
    )
    return np.asarray(next(Pipeline(bundle, "portable").draw(request)).image, np.float64)


def by_diffusers(
    folder, scheduler="DDIMScheduler", guidance=GUIDANCE, is_converted=False, **config,
):
    """The picture of diffusers; `is_converted`: from noise, worked out here from the velocity."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder / "checkpoint", safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    scheduler = getattr(diffusers, scheduler)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **config)
    assert pipeline.tokenizer.pad_token == "!"
    if is_converted:
        velocity, shares = pipeline.unet.forward, pipeline.scheduler.alphas_cumprod

        def noise(sample, timestep, **others):
            share = shares[int(timestep)]
            return (share.sqrt() * velocity(sample, timestep, **others)[0]
                    + (1 - share).sqrt() * sample,)
        pipeline.unet.forward = noise
    found = pipeline(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=guidance,
        width=WIDTH, height=HEIGHT, generator=torch.Generator().manual_seed(SEED),
    )
    return np.asarray(found.images[0], np.float64)


def psnr_db(a, b):
    return 20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("name, scheduler", [
    ("ddim", "DDIMScheduler"), ("dpm", "DPMSolverMultistepScheduler"),
    ("euler", "EulerDiscreteScheduler"),
])
def test_it_draws_the_picture_of_diffusers_with_a_scheduler_that_knows_only_noise(
    folder, name, scheduler,
):
    bundle, warnings = build(folder)

    made = drawn(bundle, name)

    assert (bundle.prediction_type, bundle.pad_token) == ("epsilon", "<|endoftext|>")
    assert not [text for text in warnings if "prediction_type" in text or "pad_token" in text]
    assert psnr_db(made, by_diffusers(folder, scheduler)) > 35


def test_pndm_extrapolates_noise_as_it_does_for_every_other_checkpoint(folder):
    """diffusers' PNDM extrapolates whatever a U-Net predicts, so from velocities it takes another
    way to a picture. Hosts extrapolate noise."""
    bundle, _ = build(folder)

    wanted = by_diffusers(folder, "PNDMScheduler", is_converted=True, prediction_type="epsilon")

    assert psnr_db(drawn(bundle, "pndm"), wanted) > 35


def test_a_wrong_prediction_would_be_another_picture(folder):
    wanted = by_diffusers(folder)

    assert psnr_db(by_diffusers(folder, prediction_type="epsilon"), wanted) < 25


def test_the_compiled_text_encoder_sees_what_the_checkpoint_was_trained_with(folder):
    bundle, _ = build(folder)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder / "checkpoint", safety_checker=None
    )
    by_host = CLIPTokenizer.from_pretrained(bundle.folder, pad_token="<|endoftext|>")

    def ids(tokenizer):
        return tokenizer(PROMPT, padding="max_length", max_length=77,
                         return_tensors="pt").input_ids

    def wanted(tokenizer):
        with torch.inference_mode():
            return pipeline.text_encoder(ids(tokenizer)).last_hidden_state.numpy()

    found = predictor.load(bundle.models["text_encoder"], "portable", "original").predict(
        {"input_ids": ids(by_host).numpy().astype(np.float32)})["last_hidden_state"]

    assert np.abs(found - wanted(pipeline.tokenizer)).max() < 0.02
    assert np.abs(found - wanted(by_host)).max() > 0.2


@pytest.mark.parametrize("guidance", [GUIDANCE, 0.5])
def test_a_batch_of_one_draws_it_too(folder, guidance):
    """With guidance below 1 the prompt alone counts, and the U-Net runs once a step."""
    bundle, _ = build(folder, batch="1")

    made = drawn(bundle, guidance=guidance)

    [ports] = json.loads((bundle.folder / "UnetChunk1.mlmodelc" / "metadata.json").read_text())
    assert json.loads(ports["inputSchema"][0]["shape"])[0] == 1
    assert psnr_db(made, by_diffusers(folder, guidance=guidance)) > 35


def test_left_as_it_is_the_manifest_says_so_and_the_picture_is_the_same(folder):
    bundle, warnings = build(folder, prediction="checkpoint")

    assert bundle.prediction_type == "v_prediction"
    assert any("found 'v_prediction', expected 'epsilon'" in text for text in warnings)
    assert psnr_db(drawn(bundle), by_diffusers(folder)) > 35
