"""The verdict on quality, on real networks: the original's pictures beside the bundle's."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from tests.tiny_checkpoints import write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TINY_EMOJI = BUILT_IN / "tiny-emoji"
PROMPTS = ("a fox on a blue background", "a panda on a red background")
CHECK = f"""
[draw]
negative = "a dog"
scheduler = "ddim"
steps = 4
guidance = 5.0

[check]
prompts = {json.dumps(PROMPTS)}
"""
ACCEPTS = 'accepts = "broken"\nreason = "a study of noise"\n'


def recipe(folder, source=TINY_EMOJI, size="128x128", more=""):
    path = folder / "my.toml"
    path.write_text(f"""family = "sd"
source = "{source}"
size = "{size}"
components = ["text_encoder", "unet", "vae_decoder"]
{CHECK}{more}""")
    return f"model={path}"


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def verdicts(printed):
    found = (line.split(": ", 1) for line in printed.splitlines())
    return {words[0]: words[1] for words in found if words[0] in ("parity", "quality")}


def by_diffusers(source, prompt, seed, width, height):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline(prompt, negative_prompt="a dog", num_inference_steps=4, guidance_scale=5.0,
                    width=width, height=height,
                    generator=torch.Generator().manual_seed(seed)).images[0]


@pytest.mark.parametrize("style, size", [(None, (128, 128)), ("sd1", (64, 72)), ("sd2", (72, 64))])
def test_the_pictures_of_the_original_are_those_of_diffusers(tmp_path, style, size):
    """Of the velocity and the padding of Stable Diffusion 2, and of sides that no halving divides,
    too."""
    source = write_checkpoint(tmp_path / "checkpoint", style) if style else TINY_EMOJI
    words = {"model": recipe(tmp_path, source, "{}x{}".format(*size)).partition("=")[2]}
    store = Store(tmp_path / "cache")

    record = Builder(plan(load(words)), store).make_all("originals")

    folder = store.checkout(record, tmp_path / "originals")
    for number, prompt in enumerate(PROMPTS, 1):
        found = Image.open(folder / f"{number}.png")
        assert psnr_db(found, by_diffusers(source, prompt, number, *size)) > 50


def test_originals_are_drawn_once_for_all_variants(project, tmp_path):
    model = recipe(tmp_path)

    first = project.ran("pictures", model, "quant=6", "chunk=2")
    second = project.ran("pictures", model, "quant=4")
    states = project.why("pictures", model, "attention=split_einsum")

    assert {"originals", "pictures"} <= first
    assert "pictures" in second and "originals" not in second
    assert states["originals"] == "up to date" != states["pictures"]


def test_two_bits_draw_noise_and_fail_unless_the_recipe_accepts_it(project, tmp_path):
    printed = project.doit("check", recipe(tmp_path), "quant=2", status=1)
    accepted = project.doit("build", "check", recipe(tmp_path, more=ACCEPTS), "quant=2")
    finished = project.sdbuild("check", str(project.bundle), bundle=None, status=1)

    assert verdicts(printed) == {"parity": "the same program", "quality": "broken"}
    assert verdicts(accepted)["quality"] == "broken, as the recipe accepts: a study of noise"
    assert "compared with its original, as the store has it" in finished
    measured = [line for line in printed.splitlines() if line.endswith("dB  broken")]
    assert measured and all(line in finished for line in measured)


def test_another_autoencoder_is_not_broken_since_it_is_the_original(project, tmp_path):
    """A decoder that gives negatives draws what its own PyTorch original draws."""
    vae = shutil.copytree(TINY_EMOJI / "vae", tmp_path / "vae")
    path = vae / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        weights[name] = -weights[name]
    save_file(weights, path)

    printed = project.doit("check", recipe(tmp_path), "quant=none", f"vae={vae}")

    assert verdicts(printed) == {"parity": "the same program", "quality": "same"}


def louder(weights, times):
    """An autoencoder that computes the same, with numbers that are larger in between.

    The residual stream of its decoder is scaled: whatever is read from it goes through a norm or a
    linear layer that gives it back, so the picture is the same.
    """
    writers = (".conv2.", ".to_out.0.", "decoder.conv_in.")
    passing = (".upsamplers.0.conv.", ".conv_shortcut.")
    for name in weights:
        if name.startswith("decoder.") and (
                any(part in name for part in writers)
                or (name.endswith(".bias") and any(part in name for part in passing))):
            weights[name] = weights[name] * times
    return weights


def test_an_autoencoder_that_overflows_in_fp16_is_broken_and_fails(project, tmp_path):
    """As Stable Diffusion XL's own does, whose pictures are black without a word."""
    source = Path(shutil.copytree(TINY_EMOJI, tmp_path / "checkpoint"))
    path = source / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(louder(load_file(path), 20_000.0), path)
    loud, plain = (by_diffusers(place, PROMPTS[0], 1, 128, 128) for place in (source, TINY_EMOJI))
    assert psnr_db(loud, plain) > 40, "in fp32 it draws the same picture"

    printed = project.doit("check", recipe(tmp_path, source, more=ACCEPTS), "quant=none", status=1)

    assert verdicts(printed) == {"parity": "below the floor", "quality": "broken"}
    assert "NaN  broken" in printed


def test_a_checkpoint_that_draws_nothing_in_pytorch_is_refused_by_name(project, tmp_path):
    source = Path(shutil.copytree(TINY_EMOJI, tmp_path / "checkpoint"))
    path = source / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = "decoder.conv_in.bias"
    weights[name] = torch.full(weights[name].shape, 3e38)  # finite, and its square is not
    save_file(weights, path)

    printed = project.doit("originals", recipe(tmp_path, source), status=1)

    assert "picture 1: the checkpoint produces numbers that are not finite" in printed


def test_the_built_in_model_keeps_its_pictures(project):
    printed = project.doit("check")

    assert verdicts(printed) == {"parity": "the same program", "quality": "same"}
    assert max(map(len, printed[printed.index("component "):].splitlines())) <= 80
