"""Notes on a request in each host, and the command that generates its image on a Mac."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from sdbuild.bundle.host_notes import Scene, command_line, notes
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request

BUNDLE = Bundle(
    folder=Path("/my bundle"), name="mine", family="sd", width_px=512, height_px=512,
    attention="original", scale_factor=0.18215, pad_token="<|endoftext|>",
    prediction_type="epsilon", scheduler={"beta_start": 0.00085}, models={}, defaults={},
    description="")
REQUEST = Request(prompt="a fox", negative="", seed=3, steps=20, guidance=7.5, scheduler="dpm",
                  count=1, host="swift")


def said(batch=2, bundle=BUNDLE, **changes):
    image_size = changes.pop("image_size", (0, 0))
    words = changes.pop("other_words", ())
    scene = Scene(bundle=bundle, request=replace(REQUEST, **changes), batch=batch,
                  image_size=image_size, other_words=words)
    return "\n".join(notes(scene))


def test_an_ordinary_request_needs_no_word():
    assert said() == ""
    assert said(batch=1) == ""


@pytest.mark.parametrize("changes, word", [
    ({"guidance": 0.5}, "guidance=0.5 is sent as a batch of one"),
    ({"guidance": 0, "bundle": replace(BUNDLE, family="sdxl", scale_factor=0.13025)},
     "weighs the prompt with guidance=0"),
    ({"batch": 1, "count": 2}, "crashes at several images with a U-Net of batch one"),
    ({"other_words": ("dog,",)}, "reads other tokens than CLIP for: dog,"),
    ({"seed": 2**32 + 5}, "seeds below 2^32 and uses 5 for this one"),
    ({"image": "/a.png", "strength": 1.0, "image_size": (512, 512)}, "does not look at the image"),
    ({"image": "/a.png", "image_size": (640, 480)}, "refuses an image of 640x480 pixels"),
    ({"bundle": replace(BUNDLE, prediction_type="v_prediction")}, "v_prediction for noise"),
    ({"bundle": replace(BUNDLE, scale_factor=0.13025)}, "divides latents by 0.18215"),
    ({"bundle": replace(BUNDLE, scheduler={"beta_end": 0.02})}, "in place of the checkpoint's "
                                                                "beta_end"),
])
def test_what_the_swift_package_does_otherwise_is_said(changes, word):
    assert word in said(**changes)


@pytest.mark.parametrize("host", ["diffusers", "swift", "apple-python"])
def test_an_embedding_that_is_written_in_part_is_said(host):
    bundle = replace(BUNDLE, words=(("cattoy",), ("badhand", "badhanda", "badhandb")))

    part = said(host=host, bundle=bundle, prompt="a CatToy, Badhand", negative="badhandb")
    whole = said(host=host, bundle=bundle, prompt="a cattoy", negative="badhand badhanda badhandb")

    assert part.endswith("all words are: badhand badhanda badhandb")
    assert whole == ""


def test_noise_in_each_step_is_not_seeded_in_apples_python_pipeline():
    """apple/ml-stable-diffusion seeds numpy, and schedulers draw from torch."""
    assert "seeds the first noise alone" in said(host="apple-python", scheduler="euler_a")
    assert said(host="apple-python", scheduler="euler") == ""
    assert said(host="diffusers", scheduler="euler_a") == ""


def test_the_line_for_a_mac_has_every_setting():
    line = command_line(BUNDLE, replace(REQUEST, negative="it's blurry", scheduler="pndm",
                                        rng="torch", image="/a b.png", strength=0.5, count=2))

    words = shlex.split(line)
    options = dict(zip(words[3:-1:2], words[4:-1:2], strict=True))
    assert words[:3] == ["swift", "run", "StableDiffusionSample"]
    assert words[-1] == "a fox"
    assert options == {
        "--negative-prompt": "it's blurry", "--resource-path": "/my bundle", "--seed": "3",
        "--step-count": "20", "--guidance-scale": "7.5", "--scheduler": "pndm", "--rng": "torch",
        "--image-count": "2", "--image": "/a b.png", "--strength": "0.5",
        "--compute-units": "cpuAndGPU"}


def test_a_prompt_that_looks_like_an_option_is_none():
    words = shlex.split(command_line(BUNDLE, replace(REQUEST, prompt="--xl")))

    assert words[-2:] == ["--", "--xl"]


@pytest.mark.parametrize("changes", [
    {"host": "diffusers"}, {"karras": True}, {"spacing": "leading"}, {"tokenizer": "clip"}])
def test_what_no_option_of_the_command_line_says_has_no_line(changes):
    assert command_line(BUNDLE, replace(REQUEST, **changes)) == ""
