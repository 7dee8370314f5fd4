"""Inputs for the networks of a checkpoint, and what diffusers and transformers make of them."""

import functools
import json

import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

from sdbuild.base.filenames import contents
from sdbuild.families import FAMILIES
from sdbuild.recipe.recipe import load as load_recipe
from sdbuild.runtime.predictor import load
from tests.inprocess import Steps
from tests.tiny_checkpoints import randomized, write_checkpoint

START, END = 49406, 49407
SD3_SIZE = 192, 128
"""The width and height of pictures of Stable Diffusion 3: no square."""
SD3_COMPONENTS = [component.name for component in FAMILIES["sd3"].components]


def with_controlnet(folder, family, style, size):
    """Writes a tiny checkpoint with a ControlNet; its folder, diffusers' U-Net and ControlNet, and
    the steps of a recipe of both."""
    checkpoint = write_checkpoint(folder / "first", style)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet").eval()
    net = randomized(ControlNetModel.from_unet(unet)).eval()
    net.save_pretrained(folder / "edges")
    recipe = folder / "tiny.toml"
    recipe.write_text(f'family = "{family}"\nsource = "first"\ncontrolnet = "edges"\nchunk = 1\n'
                      f'size = "{size}"\ncomponents = ["unet"]\ncompiler = "portable"\n')
    return checkpoint, unet, net, Steps(load_recipe({"model": str(recipe)}), folder)


def psnr(found, wanted):
    """In dB, relative to the largest value of what is wanted."""
    error = np.asarray(found, np.float64) - wanted
    return 20 * np.log10(np.abs(wanted).max() / np.sqrt(np.mean(error**2)))


def predicted(folder, inputs):
    """Returns the outputs of a step's compiled models on the portable executor."""
    given = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
    return _loaded(folder).predict(given)


@functools.lru_cache(2)  # a folder's models never change, and are asked again and again
def _loaded(folder):
    return load(contents(folder, ".mlmodelc"), "portable", "original")


def prompts(pad):
    """Prompts of nine random tokens, padded; each (1, 77)."""
    words = torch.randint(0, START, (4, 9), generator=torch.Generator().manual_seed(3))
    return [torch.tensor([[START, *each, END, *[pad] * 66]]) for each in words.tolist()]


def xl_embeddings(checkpoint, part, pad):
    """Returns the embeddings of the prompts by transformers' text encoder of XL, by output of
    ours."""
    config = json.loads((checkpoint / part / "config.json").read_text())
    network = getattr(transformers, config["architectures"][0])
    net = network.from_pretrained(checkpoint / part).eval()
    with torch.inference_mode():
        found = net(torch.cat(prompts(pad)), output_hidden_states=True)
    pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
    return {"hidden_embeds": found.hidden_states[-2], "pooled_outputs": pooled}


def joined(outputs):
    """The outputs of several predictions, by name, one after the other on the first axis."""
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}


def unet_cases(checkpoint, side_px=128, timesteps=(1, 501, 981), time_ids=None, **more):
    """Inputs and outputs of a U-Net at some timesteps; `time_ids` for one that takes them, `more`
    for diffusers' own alone."""
    net = UNet2DConditionModel.from_pretrained(checkpoint / "unet").eval()
    config, rng = net.config, torch.Generator().manual_seed(5)
    for timestep in timesteps:
        sample = torch.randn(2, config.in_channels, side_px // 8, side_px // 8, generator=rng)
        prompt = torch.randn(2, 77, config.cross_attention_dim, generator=rng)
        times = torch.full((2,), float(timestep))
        inputs = {"sample": sample, "timestep": times,
                  "encoder_hidden_states": prompt.transpose(1, 2)[:, :, None]}
        added = {}
        if time_ids:
            numbers = torch.tensor([time_ids] * 2)
            width = config.projection_class_embeddings_input_dim \
                - numbers.shape[1] * config.addition_time_embed_dim
            added = {"time_ids": numbers, "text_embeds": torch.randn(2, width, generator=rng)}
        with torch.inference_mode():
            wanted = net(sample, times, prompt, added_cond_kwargs=added, **more).sample
        yield inputs | added, wanted


def transformer_cases(checkpoint, width_px, height_px, timesteps):
    """Inputs and outputs of a transformer of Stable Diffusion 3 at some timesteps."""
    net = SD3Transformer2DModel.from_pretrained(checkpoint / "transformer").eval()
    config, rng = net.config, torch.Generator().manual_seed(5)
    for timestep in timesteps:
        latents = torch.randn(2, 16, height_px // 8, width_px // 8, generator=rng)
        tokens = torch.randn(2, 154, config.joint_attention_dim, generator=rng)
        pooled = torch.randn(2, config.pooled_projection_dim, generator=rng)
        times = torch.full((2,), timestep)
        with torch.inference_mode():
            wanted = net(latents, tokens, pooled, times).sample
        yield {"latent_image_embeddings": latents, "timestep": times,
               "token_level_text_embeddings": tokens.transpose(1, 2)[:, :, None],
               "pooled_text_embeddings": pooled[..., None, None]}, wanted


def vae_cases(checkpoint, side_px=128, height_px=None):
    """Inputs and outputs of the two halves of an autoencoder, by component."""
    net = AutoencoderKL.from_pretrained(checkpoint / "vae").eval()
    rng = torch.Generator().manual_seed(6)
    height_px = height_px or side_px
    cells = (net.config.latent_channels, height_px // 8, side_px // 8)
    z = torch.randn(1, *cells, generator=rng) / net.config.scaling_factor
    x = torch.rand(1, 3, height_px, side_px, generator=rng) * 2 - 1
    with torch.inference_mode():
        moments = net.encode(x).latent_dist.parameters
        return {"vae_decoder": ({"z": z}, net.decode(z).sample),
                "vae_encoder": ({"x": x}, moments)}
