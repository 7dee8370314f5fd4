"""Pictures as hosts draw them, beside those that the hosts drew."""

import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.pipeline import Pipeline
from tests.runtime import swift

SETTINGS = swift.data("pictures")
QUICK = {"dpm-numpy-5", "pndm-numpy-10", "img2img-dpm-numpy-0.3", "six-dpm-numpy"}
FLOORS_DB = {"pndm-nvidia": 49}
"""One is moved by last bits: with noise that differs by 1e-6, or with two threads, it is 50.1 to
56.0 dB from the package's."""


@pytest.fixture(scope="module")
def pipelines(built):
    """One for each of the two bundles. Sums depend on the number of threads in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {"fp16": Pipeline(load_bundle(built.folder / "fp16")),
           "six": Pipeline(load_bundle(built.bundle))}
    torch.set_num_threads(threads)


def request(given, **more):
    """A request for the Swift package, as `pictures.json` has it."""
    spacing = given.get("spacing")
    is_karras = spacing == "karras"
    return Request(**{
        "prompt": given["prompt"], "negative": given.get("negative", ""), "seed": given["seed"],
        "steps": given["steps"], "guidance": given["guidance"], "scheduler": given["scheduler"],
        "count": 1, "host": "swift", "rng": given["rng"],
        "spacing": None if is_karras else spacing, "karras": is_karras or None,
        "image": str(swift.PICTURES / "start.png") if "image" in given else None,
        "strength": float(given["strength"]) if "strength" in given else None, **more})


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS])
def test_a_picture_is_that_of_the_swift_package(pipelines, name):
    given = SETTINGS[name]

    (result,) = pipelines[given["bundle"]].draw(request(given))

    wanted = Image.open(swift.PICTURES / f"{name}-0.png").convert("RGB")
    assert swift.psnr_db(result.image, wanted) > FLOORS_DB.get(name, 54.9)


def test_all_pictures_of_a_request_share_one_stream_in_the_swift_package(pipelines):
    """Counting seeds up gives other pictures than the package from the second on."""
    given = SETTINGS["dpm-numpy-5"] | {"steps": 1}
    draw = pipelines["fp16"].draw

    together = [np.asarray(r.image) for r in draw(request(given, count=2))]
    alone = [np.asarray(next(draw(request(given, seed=seed))).image) for seed in (3, 4)]

    assert (together[0] == alone[0]).all()
    assert (together[1] != alone[1]).any()


def test_a_trace_has_what_a_mac_is_compared_with(pipelines):
    """The latents of each step follow from the traced predictions, in diffusers' scheduler."""
    found = {}
    asked = Request(prompt="a fox", negative="", seed=3, steps=3, guidance=5, scheduler="ddim",
                    count=1)

    (_,) = pipelines["fp16"].draw(asked, trace=found.__setitem__)

    assert found["text_embeddings"].shape == found["neg_embeddings"].shape
    assert found["text_embeddings"].shape[:2] == (1, 77)
    assert (found["initial_latents"] == torch.randn(
        1, 4, 16, 16, generator=torch.Generator().manual_seed(3)).numpy()).all()
    scheduler = diffusers.DDIMScheduler.from_config(pipelines["fp16"].bundle.scheduler)
    scheduler.set_timesteps(3)
    assert found["timesteps"].tolist() == scheduler.timesteps.tolist()
    sample = torch.from_numpy(found["initial_latents"])
    for index, timestep in enumerate(scheduler.timesteps):
        noise = torch.from_numpy(found[f"noise_pred_step{index}"])
        sample = scheduler.step(noise, timestep, sample).prev_sample
        assert torch.allclose(sample, torch.from_numpy(found[f"latents_step{index}"]), atol=1e-5)


def test_a_killed_request_keeps_the_images_that_it_printed(built, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "sdbuild", "generate", str(built.bundle), "--steps=1",
         "--count=20", f"--out={tmp_path / 'a.png'}"], stdout=subprocess.PIPE, text=True)
    printed = [Path(process.stdout.readline().strip()) for _ in range(2)]
    process.kill()
    rest = process.communicate()[0].splitlines()

    assert printed == [tmp_path / "a-1.png", tmp_path / "a-2.png"]
    for path in (*printed, *map(Path, rest)):
        with Image.open(path) as picture:
            picture.load()
