"""Pictures beside those of diffusers' own pipelines, on the same networks in fp32."""


import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Control, Request
from sdbuild.recipe.project import BUILT_IN
from sdbuild.runtime.pipeline import Pipeline
from tests.runtime import parts
from tests.runtime.swift import psnr_db

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = BUILT_IN / "tiny-emoji" / "tokenizer"
SIDE = 64
CELLS, PIXELS = (SIDE // 8, SIDE // 8), (SIDE, SIDE)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000, "steps_offset": 1, "clip_sample": False,
            "set_alpha_to_one": False}
FOX = {"prompt": "a fox, digital art", "negative": "a dog", "seed": 3, "steps": 4,
       "guidance": 5.0, "count": 1}


def seeded():
    return torch.Generator().manual_seed(FOX["seed"])


def text_model(kind, width, seed):
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=2, projection_dim=width, eos_token_id=49407, bos_token_id=49406)
    return kind(config).eval()


def unet(seed, width, channels=4, xl_numbers=None, pooled=32, **more):
    torch.manual_seed(seed)
    added = {} if xl_numbers is None else {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": pooled + 8 * xl_numbers}
    return diffusers.UNet2DConditionModel(
        sample_size=CELLS[0], in_channels=channels, out_channels=4, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
        cross_attention_dim=width, attention_head_dim=8, **added, **more).eval()


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 32, 32), down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=4, norm_num_groups=8,
        layers_per_block=1, sample_size=SIDE, scaling_factor=0.18215).eval()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture, a mask of its right half, and lines to guide by."""
    folder = tmp_path_factory.mktemp("pictures")
    across = np.linspace(0, 255, SIDE)
    levels = np.stack(np.broadcast_arrays(across[:, None], across[None], 99.0), -1)
    mask = np.zeros(PIXELS, np.uint8)
    mask[:, SIDE // 2:] = 255
    lines = np.zeros((*PIXELS, 3), np.uint8)
    lines[::9] = 255
    for name, array in (("image", levels.astype(np.uint8)), ("mask", mask), ("lines", lines)):
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


def ours(of_components, family="sd", **more):
    """The pipeline over predictors of components."""
    bundle = Bundle(
        folder=TOKENIZER, name="tiny", family=family, width_px=SIDE, height_px=SIDE,
        attention="original", scale_factor=0.18215, pad_token="<|endoftext|>",
        prediction_type="epsilon", scheduler=SCHEDULE,
        models=dict.fromkeys(of_components, ()), defaults={}, description="", **more)
    return Pipeline(bundle, parts=of_components.__getitem__)


def drawn(pipeline, **settings):
    (result,) = pipeline.draw(Request(**{**FOX, "scheduler": "euler", **settings}))
    return result.image


def quiet(pipeline, scheduler="EulerDiscreteScheduler"):
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(SCHEDULE)
    return pipeline


def tokenizer(**more):
    return CLIPTokenizer.from_pretrained(str(TOKENIZER), model_max_length=77, **more)


GIVEN = {"num_inference_steps": FOX["steps"], "guidance_scale": FOX["guidance"],
         "negative_prompt": FOX["negative"], "width": SIDE, "height": SIDE}


@pytest.fixture(scope="module")
def small(vae):
    """The parts of Stable Diffusion, and diffusers' components."""
    torch.manual_seed(2)
    encoder, network = text_model(CLIPTextModel, 32, 3), unet(4, 32)
    components = {
        "text_encoder": parts.text_encoder(encoder), "unet": parts.unet(network, CELLS),
        "vae_decoder": parts.vae_decoder(vae, CELLS), "vae_encoder": parts.vae_encoder(vae, PIXELS)}
    theirs = {"vae": vae, "text_encoder": encoder, "tokenizer": tokenizer(), "unet": network,
              "scheduler": diffusers.EulerDiscreteScheduler.from_config(SCHEDULE),
              "safety_checker": None, "feature_extractor": None}
    return components, theirs


@pytest.mark.parametrize("strength", [None, 0.5])
@pytest.mark.parametrize("scheduler, kind", [
    ("euler", "EulerDiscreteScheduler"), ("euler_a", "EulerAncestralDiscreteScheduler"),
    ("ddim", "DDIMScheduler")])
@pytest.mark.parametrize("channels", [4, 9])
def test_the_masked_part_of_an_image_is_drawn_anew_as_in_diffusers(
        small, picture, channels, scheduler, kind, strength):
    """By a U-Net of four channels, and by one that was made for inpainting."""
    components, theirs = small
    if channels == 9:
        network = unet(5, 32, channels=9)
        components = components | {"unet": parts.unet(network, CELLS)}
        theirs = theirs | {"unet": network}
    pipeline = quiet(diffusers.StableDiffusionInpaintPipeline(
        **theirs, requires_safety_checker=False), kind)
    image, mask = (Image.open(picture / f"{name}.png") for name in ("image", "mask"))

    wanted = pipeline(FOX["prompt"], image=image, mask_image=mask, generator=seeded(),
                      strength=strength or 1.0, **GIVEN).images[0]
    found = drawn(ours(components), scheduler=scheduler, strength=strength,
                  image=str(picture / "image.png"), mask=str(picture / "mask.png"))

    assert psnr_db(found, wanted) > 50


def guiding(network, seed):
    """A ControlNet of a U-Net whose residuals are not zero."""
    net = diffusers.ControlNetModel.from_unet(network)
    torch.manual_seed(seed)
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.05)
    torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.05)
    return net.eval()


def test_control_nets_guide_inpainting_as_in_diffusers(small, picture):
    """A U-Net for inpainting takes mask and image; a ControlNet beside it the latents alone."""
    components, theirs = small
    network = unet(5, 32, channels=9)
    net = guiding(theirs["unet"], 0)
    components = components | {
        "unet": parts.unet(network, CELLS), "controlnet/Net": parts.controlnet(net, CELLS, PIXELS),
        "controlled_unet": parts.unet(
            network, CELLS, residuals=parts.residual_shapes(net, CELLS))}
    pipeline = quiet(diffusers.StableDiffusionControlNetInpaintPipeline(
        **theirs | {"unet": network}, controlnet=net, requires_safety_checker=False),
        "DDIMScheduler")
    image, mask, lines = (Image.open(picture / f"{name}.png")
                          for name in ("image", "mask", "lines"))

    wanted = pipeline(FOX["prompt"], image=image, mask_image=mask, control_image=lines,
                      strength=1.0, controlnet_conditioning_scale=1.0, generator=seeded(),
                      **GIVEN).images[0]
    found = drawn(ours(components), scheduler="ddim", image=str(picture / "image.png"),
                  mask=str(picture / "mask.png"),
                  control=(Control("Net", str(picture / "lines.png"), 1.0),))

    assert psnr_db(found, wanted) > 50


@pytest.mark.parametrize("scales", [(1.0,), (0.6, 0.9)])
def test_control_nets_guide_as_in_diffusers(small, picture, scales):
    components, theirs = small
    nets = [guiding(theirs["unet"], seed) for seed in range(len(scales))]
    components = components | {"controlled_unet": parts.unet(
        theirs["unet"], CELLS, residuals=parts.residual_shapes(nets[0], CELLS))}
    components |= {f"controlnet/Net{i}": parts.controlnet(net, CELLS, PIXELS)
                   for i, net in enumerate(nets)}
    pipeline = quiet(diffusers.StableDiffusionControlNetPipeline(
        **theirs, controlnet=nets, requires_safety_checker=False))
    lines = picture / "lines.png"

    wanted = pipeline(FOX["prompt"], [Image.open(lines)] * len(nets), generator=seeded(),
                      controlnet_conditioning_scale=list(scales), **GIVEN).images[0]
    control = tuple(Control(f"Net{i}", str(lines), scale) for i, scale in enumerate(scales))
    found = drawn(ours(components), control=control)

    assert psnr_db(found, wanted) > 50
    plain = drawn(ours(components))
    assert psnr_db(plain, wanted) < 50, "they change the picture"

    only_controlled = ours({name: part for name, part in components.items() if name != "unet"})
    assert psnr_db(drawn(only_controlled, control=control), wanted) > 50
    assert psnr_db(drawn(only_controlled), plain) > 50, "nothing is added to its residuals"


@pytest.fixture(scope="module")
def large(vae):
    """The parts of Stable Diffusion XL, and diffusers' components."""
    encoders = (text_model(CLIPTextModel, 32, 6), text_model(CLIPTextModelWithProjection, 48, 7))
    network = unet(8, 80, xl_numbers=6, pooled=48)
    components = {
        "text_encoder": parts.text_encoder(encoders[0]),
        "text_encoder_2": parts.text_encoder(encoders[1]),
        "unet": parts.unet(network, CELLS, numbers=6),
        "vae_decoder": parts.vae_decoder(vae, CELLS), "vae_encoder": parts.vae_encoder(vae, PIXELS)}
    theirs = {"vae": vae, "text_encoder": encoders[0], "text_encoder_2": encoders[1],
              "tokenizer": tokenizer(), "tokenizer_2": tokenizer(pad_token="!"), "unet": network,
              "scheduler": diffusers.EulerDiscreteScheduler.from_config(SCHEDULE)}
    return components, theirs


@pytest.mark.parametrize("negative", ["a dog", ""])
def test_stable_diffusion_xl_draws_as_in_diffusers(large, negative):
    """A negative prompt that nobody gave has an embedding of zeros."""
    components, theirs = large
    pipeline = quiet(diffusers.StableDiffusionXLPipeline(**theirs, add_watermarker=False))

    wanted = pipeline(FOX["prompt"], generator=seeded(),
                      **GIVEN | {"negative_prompt": negative or None}).images[0]
    found = drawn(ours(components, "sdxl"), negative=negative)

    assert psnr_db(found, wanted) > 50


def test_xl_is_guided_by_a_controlnet_as_in_diffusers(large, picture):
    components, theirs = large
    net = guiding(theirs["unet"], 0)
    shapes = parts.residual_shapes(net, CELLS, numbers=6)
    components = components | {
        "controlled_unet": parts.unet(theirs["unet"], CELLS, numbers=6, residuals=shapes),
        "controlnet/Net": parts.controlnet(net, CELLS, PIXELS, numbers=6)}
    pipeline = quiet(diffusers.StableDiffusionXLControlNetPipeline(
        **theirs, controlnet=net, add_watermarker=False))
    lines = picture / "lines.png"

    wanted = pipeline(FOX["prompt"], image=Image.open(lines), generator=seeded(),
                      controlnet_conditioning_scale=0.8, **GIVEN).images[0]
    found = drawn(ours(components, "sdxl"), control=(Control("Net", str(lines), 0.8),))

    assert psnr_db(found, wanted) > 50
    assert psnr_db(drawn(ours(components, "sdxl")), wanted) < 50, "it changes the picture"


def test_xl_draws_an_image_anew_as_in_diffusers(large, picture):
    components, theirs = large
    pipeline = quiet(diffusers.StableDiffusionXLImg2ImgPipeline(**theirs, add_watermarker=False))
    given = {k: v for k, v in GIVEN.items() if k not in ("width", "height")}

    wanted = pipeline(FOX["prompt"], image=Image.open(picture / "image.png"), generator=seeded(),
                      strength=0.5, **given).images[0]
    found = drawn(ours(components, "sdxl"), image=str(picture / "image.png"), strength=0.5)

    assert psnr_db(found, wanted) > 50


def test_the_refiner_takes_over_as_in_diffusers(large):
    """Its own conditions on the same latents: `denoising_end` and `denoising_start` there."""
    components, theirs = large
    network = unet(9, 48, xl_numbers=5, pooled=48)
    components = components | {"refiner": parts.unet(network, CELLS, numbers=5)}
    base = quiet(diffusers.StableDiffusionXLPipeline(**theirs, add_watermarker=False))
    refiner = quiet(diffusers.StableDiffusionXLImg2ImgPipeline(
        **theirs | {"unet": network, "text_encoder": None, "tokenizer": None},
        add_watermarker=False, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False))
    given = {k: v for k, v in GIVEN.items() if k not in ("width", "height")}

    latents = base(FOX["prompt"], generator=seeded(), output_type="latent", denoising_end=0.5,
                   **GIVEN).images
    wanted = refiner(FOX["prompt"], image=latents, denoising_start=0.5, **given).images[0]
    found = drawn(ours(components, "sdxl"), refiner=0.5)

    assert psnr_db(found, wanted) > 50


def test_the_refiner_finishes_what_a_u_net_for_inpainting_began(large, picture):
    """It takes the latents alone, without mask and image."""
    components, theirs = large
    network = unet(9, 48, xl_numbers=5, pooled=48)
    masked = unet(8, 80, xl_numbers=6, pooled=48, channels=9)
    components = components | {"unet": parts.unet(masked, CELLS, numbers=6),
                               "refiner": parts.unet(network, CELLS, numbers=5)}
    base = quiet(diffusers.StableDiffusionXLInpaintPipeline(
        **theirs | {"unet": masked}, add_watermarker=False))
    refiner = quiet(diffusers.StableDiffusionXLImg2ImgPipeline(
        **theirs | {"unet": network, "text_encoder": None, "tokenizer": None},
        add_watermarker=False, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False))
    image, mask = (Image.open(picture / f"{name}.png") for name in ("image", "mask"))
    given = {k: v for k, v in GIVEN.items() if k not in ("width", "height")}

    latents = base(FOX["prompt"], image=image, mask_image=mask, strength=1.0, generator=seeded(),
                   output_type="latent", denoising_end=0.5, **GIVEN).images
    wanted = refiner(FOX["prompt"], image=latents, denoising_start=0.5, **given).images[0]
    found = drawn(ours(components, "sdxl"), refiner=0.5, image=str(picture / "image.png"),
                  mask=str(picture / "mask.png"))

    assert psnr_db(found, wanted) > 50
