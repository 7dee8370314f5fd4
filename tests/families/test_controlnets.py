"""ControlNets and the controlled U-Net, from checkpoint to picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw

from sdbuild.base.filenames import contents
from sdbuild.bundle.manifest import Bundle, load_bundle
from sdbuild.bundle.request import Control, Request
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.runtime.predictor import load as predictor
from tests.families.references import predicted, psnr, with_controlnet
from tests.inprocess import Steps
from tests.runtime import parts
from tests.tiny_checkpoints import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE_PX = 128
NET = "controlnet/TinyEmojiControl"
PLACEMENTS = {"cat face": (80, 40, 8), "penguin": (72, 4, 40), "frog": (90, 20, 30)}
"""Of each concept: the side of its silhouette, and where it lies, in pixels."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")

    def made(**words):
        components = "text_encoder,unet,vae_decoder"
        return Steps(load({"model": "tiny-emoji-control", "components": components, **words}),
                     folder)
    return made


@pytest.fixture(scope="module")
def originals():
    return (ControlNetModel.from_pretrained(BUILT_IN / "tiny-emoji-control").float().eval(),
            UNet2DConditionModel.from_pretrained(BUILT_IN / "tiny-emoji" / "unet").float().eval())


TIMESTEPS = (981.0, 501.0, 1.0)


def inputs(seed):
    rng = torch.Generator().manual_seed(seed)
    return {"sample": torch.randn(2, 4, 16, 16, generator=rng),
            "timestep": torch.full((2,), TIMESTEPS[seed]),
            "encoder_hidden_states": torch.randn(2, 64, 1, 77, generator=rng)}


def rows(given):
    return given["encoder_hidden_states"][:, :, 0].mT


@pytest.mark.slow
@pytest.mark.parametrize("attention, least_db", [("original", 70), ("split_einsum", 62)])
def test_residuals_in_fp16_are_those_of_diffusers(steps, originals, attention, least_db):
    compiled = steps(quant="none", attention=attention)[f"compile:{NET}"]
    for seed in range(len(TIMESTEPS)):
        given = inputs(seed)
        picture = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            down, mid = originals[0](given["sample"], given["timestep"], rows(given), picture,
                                     return_dict=False)

        found = predicted(compiled, {**given, "controlnet_cond": picture})

        wanted = {f"additional_residual_{i}": t.numpy() for i, t in enumerate((*down, mid))}
        assert found.keys() == wanted.keys()
        assert min(psnr(found[name], wanted[name]) for name in wanted) > least_db


@pytest.mark.slow
@pytest.mark.parametrize("chunk", ["1", "2"])
def test_the_controlled_unet_in_fp16_is_that_of_diffusers(steps, originals, chunk):
    compiled = steps(quant="none", chunk=chunk)["compile:controlled_unet"]
    for seed in range(len(TIMESTEPS)):
        given = inputs(seed)
        rng = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            down, mid = originals[0](given["sample"], given["timestep"], rows(given),
                                     torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=rng),
                                     return_dict=False)
            wanted = originals[1](given["sample"], given["timestep"], rows(given),
                                  down_block_additional_residuals=down,
                                  mid_block_additional_residual=mid, return_dict=False)[0]
        added = {f"additional_residual_{i}": t for i, t in enumerate((*down, mid))}

        found = predicted(compiled, given | added)

        assert psnr(found["noise_pred"], wanted.numpy()) > 75


@pytest.mark.slow
def test_a_bundle_has_the_weights_of_both_unets_once(steps):
    made = steps()
    plain, controlled = (
        next(made[f"compile:{name}"].rglob("weight.bin")) for name in ("unet", "controlled_unet"))

    assert plain.read_bytes() == controlled.read_bytes()
    models = [path.name for path in contents(made["bundle"] / "controlnet")]
    assert models == ["TinyEmojiControl.mlmodelc"]


def silhouette(concept, side, x, y):
    """A filled silhouette, white on black."""
    data = np.load(ROOT / "benchmarks" / "tiny-emoji-refs.npz")
    alpha = data["icons"][list(data["names"]).index(concept)][..., 3]
    canvas = Image.new("L", (SIDE_PX, SIDE_PX))
    canvas.paste(Image.fromarray(alpha).resize((side, side)), (x, y))
    return Image.fromarray((np.asarray(canvas) > 127).astype(np.uint8) * 255).convert("RGB")


def filled(mask):
    """The mask with its enclosed holes."""
    outside = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255).copy()
    ImageDraw.floodfill(outside, (0, 0), 128)
    return np.asarray(outside)[1:-1, 1:-1] != 128


def overlap(image, wanted):
    """Foreground over silhouette: intersection over union. Foreground is what differs by more than
    32 of 255 from the border's median colour."""
    pixels = np.asarray(image, np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    found = filled(np.abs(pixels - np.median(border, axis=0)).max(2) > 32)
    mask = filled(np.asarray(wanted)[..., 0] > 127)
    return (found & mask).sum() / (found | mask).sum()


@pytest.mark.slow
def test_pictures_follow_a_silhouette_as_in_diffusers(steps, originals, tmp_path):
    made = steps(quant="6")
    bundle = load_bundle(made["bundle"])
    pipeline = Pipeline(bundle, "portable")
    theirs = StableDiffusionControlNetPipeline.from_pretrained(
        BUILT_IN / "tiny-emoji", controlnet=originals[0], safety_checker=None)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    theirs.to(torch.float32)
    request = replace(made.plan.recipe.draw, scheduler="ddim", guidance=5.0, steps=10, seed=1)
    of_ours, of_theirs, uncontrolled = [], [], []
    for concept, placement in PLACEMENTS.items():
        wanted = silhouette(concept, *placement)
        wanted.save(tmp_path / "control.png")
        prompt = f"a {concept} on a blue background"
        picture, plain = (
            next(pipeline.draw(replace(request, prompt=prompt, control=control))).image
            for control in ((Control("TinyEmojiControl", str(tmp_path / "control.png"), 1.0),),
                            None))
        of_ours.append(overlap(picture, wanted))
        uncontrolled.append(overlap(plain, wanted))
        of_theirs.append(overlap(theirs(
            prompt, image=wanted, num_inference_steps=10, guidance_scale=5.0, width=SIDE_PX,
            height=SIDE_PX, generator=torch.Generator().manual_seed(1)).images[0], wanted))

    assert np.mean(of_ours) > np.mean(of_theirs) - 0.01
    assert np.mean(of_ours) > np.mean(uncontrolled) + 0.2


@pytest.mark.slow
def test_at_scale_0_a_picture_is_that_of_the_plain_bundle(steps, tmp_path):
    made = steps(quant="6")
    pipeline = Pipeline(load_bundle(made["bundle"]), "portable")
    silhouette("frog", *PLACEMENTS["frog"]).save(tmp_path / "control.png")
    request = replace(made.plan.recipe.draw, steps=4)

    pictures = [next(pipeline.draw(replace(request, control=control))).image for control in (
        None, (Control("TinyEmojiControl", str(tmp_path / "control.png"), 0.0),))]

    assert np.array_equal(*map(np.asarray, pictures))


@pytest.mark.slow
def test_images_that_are_no_squares_are_guided_as_in_diffusers(tmp_path):
    width, height = 96, 160
    checkpoint, _, net, made = with_controlnet(tmp_path, "sd", "sd1", f"{width}x{height}")
    theirs = StableDiffusionControlNetPipeline.from_pretrained(
        checkpoint, controlnet=net, safety_checker=None)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    lines = Image.new("RGB", (width, height))
    ImageDraw.Draw(lines).line([(8, 8), (80, 140)], "white", 6)
    lines.save(tmp_path / "lines.png")
    given = {
        "text_encoder": parts.text_encoder(theirs.text_encoder),
        "vae_decoder": parts.vae_decoder(theirs.vae, (height // 8, width // 8)),
        **{name: predictor(contents(made[f"compile:{name}"], ".mlmodelc"), "portable", "original")
           for name in ("controlled_unet", "controlnet/Edges")}}
    bundle = Bundle(
        folder=checkpoint / "tokenizer", name="tiny", family="sd", width_px=width,
        height_px=height, attention="original", scale_factor=theirs.vae.config.scaling_factor,
        pad_token="<|endoftext|>", prediction_type="epsilon", defaults={}, description="",
        scheduler=dict(theirs.scheduler.config), models=dict.fromkeys(given, ()))

    [drawn] = Pipeline(bundle, parts=given.__getitem__).draw(Request(
        prompt="a frog", negative="", seed=1, steps=4, guidance=5.0, scheduler="ddim", count=1,
        control=(Control("Edges", str(tmp_path / "lines.png"), 1.0),)))

    wanted, without = (
        theirs("a frog", image=lines, num_inference_steps=4, guidance_scale=5.0, width=width,
               height=height, generator=torch.Generator().manual_seed(1), output_type="np",
               controlnet_conditioning_scale=scale).images[0] for scale in (1.0, 0.0))
    found = np.asarray(drawn.image) / 255
    assert drawn.image.size == (width, height)
    assert psnr(found, wanted) >= 50 > psnr(without, wanted)
