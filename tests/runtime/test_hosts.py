"""The options by which each host differs from the others, one by one."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from sdbuild.base.errors import BundleError
from sdbuild.bundle.hosts import HOSTS, RNGS
from sdbuild.bundle.request import Request
from sdbuild.runtime import tokenizers
from sdbuild.runtime.safety_checker import seen
from tests.runtime import parts
from tests.runtime.swift import psnr_db
from tests.runtime.test_diffusers_pipelines import (
    CELLS,
    FOX,
    GIVEN,
    TOKENIZER,
    drawn,
    large,
    ours,
    picture,
    quiet,
    small,
    vae,
)

__all__ = ["large", "picture", "small", "vae"]
pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE = (1, 4, *CELLS)


def noise(rng):
    """Returns the random numbers of numpy and PyTorch themselves."""
    if rng == "numpy":
        return np.random.RandomState(FOX["seed"]).randn(*SHAPE)
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(FOX["seed"])).numpy()


@pytest.mark.parametrize("host, rng, rounding", [
    ("diffusers", None, np.float32), ("diffusers", "numpy", np.float32),
    ("apple-python", None, np.float16), ("apple-python", "torch", np.float16)])
def test_noise_is_the_hosts_own_or_the_one_that_is_asked_for(small, host, rng, rounding):
    """The rest is diffusers' pipeline, which takes latents from outside."""
    import diffusers

    components, theirs = small
    pipeline = quiet(diffusers.StableDiffusionPipeline(**theirs, requires_safety_checker=False))
    default = {"diffusers": "torch", "apple-python": "numpy"}[host]
    latents = noise(rng or default).astype(rounding).astype(np.float32)

    wanted = pipeline(FOX["prompt"], latents=torch.from_numpy(latents), **GIVEN).images[0]

    assert psnr_db(drawn(ours(components), host=host, rng=rng), wanted) > 50


@pytest.mark.parametrize("rng", RNGS)
def test_every_generator_can_be_asked_of_every_host(small, rng):
    found = [drawn(ours(small[0]), scheduler="dpm", host=host, rng=rng, steps=1) for host in HOSTS]

    assert all(np.asarray(image).std() > 1 for image in found)


def token_ids(components, **settings):
    """The tokens that the text encoder was given, the negative prompt's first."""
    seen = []
    encoder = components["text_encoder"]

    def watched(input_ids):
        seen.append([int(i) for i in input_ids[0]])
        return encoder.function(input_ids)

    watching = components | {"text_encoder": parts.Part(encoder.shapes, watched)}
    drawn(ours(watching), scheduler="dpm", steps=1, **settings)
    return seen


@pytest.mark.parametrize("settings, name", [
    ({}, "clip"), ({"tokenizer": "swift"}, "swift"), ({"host": "swift"}, "swift"),
    ({"host": "swift", "tokenizer": "clip"}, "clip"), ({"host": "apple-python"}, "clip")])
def test_tokens_are_the_hosts_own_or_those_that_are_asked_for(small, settings, name):
    """`fox,` is what the two tokenizers differ in."""
    tokenizer = tokenizers.load(name, tokenizers.read(TOKENIZER), "<|endoftext|>")

    found = token_ids(small[0], **settings)

    assert found == [tokenizer.ids(FOX[p], 77) for p in ("negative", "prompt")]


@pytest.mark.parametrize("settings, said", [
    ({"scheduler": "euler"}, "Apple's Swift package has only dpm, pndm"),
    ({"spacing": "trailing"}, "Apple's Swift package has only linspace, leading"),
    ({"scheduler": "dpm_exponential"}, "Apple's Swift package has only karras"),
    ({"karras": True, "steps": 1}, "karras with one step: Apple's Swift package crashes"),
    ({"scheduler": "pndm", "steps": 1}, "steps=1 with pndm: Apple's Swift package crashes"),
    ({"scheduler": "pndm", "karras": True}, "has no sigmas that could be karras"),
])
def test_what_the_swift_package_cannot_do_is_refused_by_its_name(small, settings, said):
    with pytest.raises(BundleError, match=said):
        drawn(ours(small[0]), **{"scheduler": "dpm", "host": "swift", **settings})


def of_xl(large, **settings):
    """Returns the inputs of XL's U-Net in the first step, and the guided prediction."""
    components, seen = dict(large[0]), []
    network = components["unet"]

    def watched(**inputs):
        found = network.function(**inputs)
        seen.append({k: v.numpy() for k, v in inputs.items()} | {
            k: v.numpy() for k, v in found.items()})
        return found

    components["unet"] = parts.Part(network.shapes, watched)
    trace = {}
    list(ours(components, "sdxl").draw(
        Request(**{**FOX, "scheduler": "dpm", "steps": 2, **settings}), trace=trace.__setitem__))
    return seen[0], trace["noise_pred_step0"]


def test_the_swift_package_tells_xl_1024_pixels_whatever_the_size(large):
    """`tests/fixtures` of its runs: time_ids are 1024, 1024, 0, 0, 1024, 1024; diffusers' true."""
    swift, _ = of_xl(large, host="swift")
    diffusers, _ = of_xl(large)

    assert swift["time_ids"].tolist() == [[1024, 1024, 0, 0, 1024, 1024]] * 2
    assert diffusers["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 2


def test_the_swift_package_encodes_a_negative_prompt_that_is_not_given(large):
    """diffusers takes zeros: apps draw another image from the same bundle."""
    swift, _ = of_xl(large, host="swift", negative="")
    diffusers, _ = of_xl(large, negative="")

    assert np.abs(swift["encoder_hidden_states"][0]).max() > 0
    assert np.abs(swift["text_embeds"][0]).max() > 0
    assert np.abs(diffusers["encoder_hidden_states"][0]).max() == 0
    assert np.abs(diffusers["text_embeds"][0]).max() == 0


@pytest.mark.parametrize("guidance, half", [(0.0, 0), (1.0, 1)])
def test_at_guidance_0_the_swift_package_draws_the_negative_prompt_of_xl(large, guidance, half):
    """Distilled models are drawn with 0 in diffusers, which ignores guidance up to 1."""
    given, guided = of_xl(large, host="swift", guidance=guidance)
    _, plain = of_xl(large, guidance=guidance)

    assert np.allclose(guided[0], given["noise_pred"][half], atol=1e-6)
    diffusers = of_xl(large, guidance=guidance)[0]["noise_pred"][1]
    assert np.allclose(plain[0], diffusers, atol=1e-6)


def test_a_safety_checker_is_shown_pictures_as_each_host_shows_them():
    """A wide picture, dark on its left: diffusers cuts its middle out, the Swift package squeezes
    it, and levels are normalized by the numbers that `SafetyChecker.swift` has."""
    wide = Image.fromarray(np.repeat(np.array([[[51] * 3] * 300 + [[204] * 3] * 100], np.uint8),
                                     100, axis=0))

    cut, squeezed = (seen(wide, 8, HOSTS[name].checks) for name in ("diffusers", "swift"))

    dark, light = ((level / 255 - np.array([0.485, 0.456, 0.406]))
                   / np.array([0.229, 0.224, 0.225]) for level in (51, 204))
    assert np.allclose(squeezed[0, :, :, 0], dark[:, None], atol=0.05)
    assert np.allclose(squeezed[0, :, :, -1], light[:, None], atol=0.1)
    assert np.allclose(cut, cut[:, :, :1, :1]), "its middle is all dark"
    assert (np.allclose(cut[0, :, 0, 0], [(0.2 - mean) / std for mean, std in zip(
        OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, strict=True)], atol=1e-6))


def test_each_image_of_one_stream_is_generated_again_by_its_number(small):
    request = Request(**FOX | {"host": "swift", "scheduler": "dpm", "count": 3})
    together = [np.asarray(result.image) for result in ours(small[0]).draw(request)]

    asked = HOSTS["swift"].singles(request)
    alone = [np.asarray(drawn(ours(small[0]), **single.settings())) for single in asked]

    assert [(each.seed, each.count, each.number) for each in asked] == [
        (3, 3, 1), (3, 3, 2), (3, 3, 3)]
    assert all((one == other).all() for one, other in zip(together, alone, strict=True))
    assert (together[0] != together[1]).any()


def test_each_image_of_other_hosts_has_a_seed_of_its_own():
    request = Request(**FOX | {"scheduler": "dpm", "count": 3})

    assert [(each.seed, each.count, each.number) for each in HOSTS["diffusers"].singles(request)] \
        == [(3, 1, None), (4, 1, None), (5, 1, None)]


def test_an_image_that_is_not_of_the_request_is_refused(small):
    with pytest.raises(BundleError, match="number=3: there is no such image of count=2"):
        drawn(ours(small[0]), scheduler="dpm", count=2, number=3)
