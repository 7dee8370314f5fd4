"""Bugs that were reported to other projects, rebuilt small; each test names the report."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sdbuild.base.errors import BundleError
from sdbuild.bundle.request import Request
from sdbuild.runtime.drawing import draw_each
from tests.runtime import parts
from tests.runtime.test_diffusers_pipelines import (
    CELLS,
    FOX,
    SCHEDULE,
    drawn,
    ours,
    picture,
    small,
    vae,
)

__all__ = ["picture", "small", "vae"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("steps, strength", [(4, 0.1), (1, 0.99)])
def test_a_strength_that_leaves_no_step_is_refused_with_one_that_does(
        small, picture, steps, strength):
    """ml-explore/mlx-examples, issue 575; IDKiro/sdxs, issue 24: a crash there."""
    image = str(picture / "image.png")

    with pytest.raises(BundleError, match=f"leaves no step of {steps}") as refused:
        drawn(ours(small[0]), image=image, steps=steps, strength=strength)

    assert f"at least {1 / steps:g}" in str(refused.value)


def test_an_upright_image_is_given_to_the_encoder_upright(small, vae, tmp_path):
    """apple/ml-stable-diffusion, issue 143: height and width changed places."""
    seen = {}
    upright = (96, 64)  # height and width in pixels
    encoder = parts.vae_encoder(vae, upright)
    run = encoder.function

    def watched(x):
        seen["x"] = x.numpy()
        return run(x)

    encoder.function = watched
    cells = (12, 8)
    components = small[0] | {
        "vae_encoder": encoder, "vae_decoder": parts.vae_decoder(vae, cells),
        "unet": parts.unet(small[1]["unet"], cells)}
    red_above = np.zeros((*upright, 3), np.uint8)
    red_above[:48, :, 0] = 255
    Image.fromarray(red_above).save(tmp_path / "a.png")

    found = drawn(ours(components), image=str(tmp_path / "a.png"), strength=0.5)

    assert found.size == (64, 96)
    assert seen["x"].shape == (1, 3, 96, 64)
    assert (seen["x"][0, 0, :48] == 1).all()
    assert (seen["x"][0, 0, 48:] == -1).all()


def test_a_photograph_is_turned_as_its_camera_was(small, vae, tmp_path):
    """huggingface/diffusers, `load_image`: phones write the turn into EXIF, and nothing else."""
    from sdbuild.runtime import images

    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    Image.new("RGB", (32, 16)).save(tmp_path / "a.jpg", exif=exif)

    assert images.read(tmp_path / "a.jpg").size == (16, 32)


@pytest.mark.parametrize("scheduler", ["euler_a", "dpm_sde", "lcm", "dpm2_a"])
def test_schedulers_that_add_noise_draw_the_same_image_again(small, scheduler):
    """invoke-ai/InvokeAI, pull request 3554; huggingface/diffusers, 1019: another image each
    time, as the generator was not handed over."""
    first, second, other = (drawn(ours(small[0]), scheduler=scheduler, seed=seed)
                            for seed in (3, 3, 4))

    assert (np.asarray(first) == np.asarray(second)).all()
    assert (np.asarray(first) != np.asarray(other)).any()


@pytest.mark.parametrize("scheduler", ["euler", "euler_a"])
def test_an_image_of_several_is_that_of_its_own_seed_alone(small, scheduler):
    """huggingface/diffusers, issue 612: in a batch the noise of a step depended on the others."""
    request = Request(**FOX | {"scheduler": scheduler, "count": 3})

    together = list(ours(small[0]).draw(request))

    for result in together:
        alone = drawn(ours(small[0]), scheduler=scheduler, seed=result.seed)
        assert (np.asarray(result.image) == np.asarray(alone)).all()
    assert [result.seed for result in together] == [3, 4, 5]


@pytest.mark.parametrize("scheduler", ["dpm_karras", "euler_karras", "unipc_karras"])
def test_every_step_that_is_asked_for_is_done_and_reported(small, scheduler):
    """huggingface/diffusers, issue 4122: 95 of 100 steps, as some sigmas shared a timestep."""
    done = []
    request = Request(**FOX | {"scheduler": scheduler, "steps": 100, "guidance": 1.0})
    components = small[0] | {"unet": parts.Part(
        small[0]["unet"].shapes, lambda sample, **_: {"noise_pred": sample})}

    (result,) = ours(components).draw(request, progress=done.append)

    assert result.steps == 100
    assert done == [100] * 100


def test_the_swift_package_makes_its_last_karras_step_for_nothing():
    """huggingface/diffusers, pull request 6477: the last sigma twice is a step of no length. The
    package has it still; what it decodes is the prediction of the clean sample, so it shows less.
    """
    from sdbuild.runtime.schedulers import Asked
    from sdbuild.runtime.schedulers.swift import schedule

    steps = schedule(Asked(scheduler="dpm", config={}, steps=10, sigmas="karras"),
                     torch.Generator())
    sample = torch.ones(1, 4, 2, 2)
    for index in range(9):
        sample = steps.step(torch.full_like(sample, 0.1), index, sample)

    last = steps.step(torch.full_like(sample, 0.1), 9, sample)

    assert torch.allclose(last, sample, atol=1e-6)


def test_the_first_timestep_is_the_last_trained_one_with_trailing_steps(small):
    """Lin et al. 2023, and huggingface/diffusers, issue 3475: with leading ones, images are never
    quite dark or bright."""
    found = {}
    for spacing in (None, "trailing", "linspace"):
        list(ours(small[0]).draw(
            Request(**FOX | {"scheduler": "ddim", "spacing": spacing, "steps": 4}),
            trace=lambda name, array, s=spacing: found.setdefault((s, name), array)))

    theirs = diffusers.DDIMScheduler.from_config(SCHEDULE, timestep_spacing="trailing")
    theirs.set_timesteps(4)
    assert found[("trailing", "timesteps")].tolist() == theirs.timesteps.tolist()
    assert found[("trailing", "timesteps")][0] == 999
    assert found[(None, "timesteps")][0] == 751  # with an offset of one
    assert found[("linspace", "timesteps")].tolist() == [999, 666, 333, 0]


@pytest.mark.parametrize("option", ["mask", "control"])
def test_what_a_host_does_not_take_is_refused_by_its_name(small, picture, option):
    """apple/ml-stable-diffusion, issues 148 and 263, ask for masks, which it does not have."""
    from sdbuild.bundle.request import Control

    given = {"mask": str(picture / "mask.png"), "image": str(picture / "image.png")}
    if option == "control":
        given = {"control": (Control("Net", str(picture / "lines.png")),)}
    host = "swift" if option == "mask" else "diffusers"

    with pytest.raises(BundleError, match=f"{option}") as refused:
        drawn(ours(small[0]), scheduler="dpm", host=host, **given)

    expected = "Apple's Swift package takes none" if option == "mask" else "no such ControlNet"
    assert expected in str(refused.value)


def test_seeds_that_nothing_could_generate_again_are_refused(small):
    with pytest.raises(BundleError, match="seeds from 9223372036854775807 end"):
        drawn(ours(small[0]), seed=2**63 - 1, count=2)


@pytest.mark.parametrize("given, said", [
    ({"mask": "mask.png"}, "mask: there is no image to"),
    ({"strength": 0.5}, "strength: there is no image to"),
    ({"refiner": 0.5}, "refiner=0.5: .* has no refiner")])
def test_a_setting_for_something_that_is_not_there_is_refused(small, given, said):
    with pytest.raises(BundleError, match=said):
        drawn(ours(small[0]), **given)


def test_a_check_refuses_it_too(small):
    request = Request(**FOX | {"scheduler": "euler", "strength": 0.5})

    with pytest.raises(BundleError, match="strength: there is no image to"):
        list(draw_each(ours(small[0]).bundle, [request], small[0].__getitem__))


def test_a_batch_of_one_draws_what_a_batch_of_two_draws(small):
    """apple/ml-stable-diffusion, pull requests 360 and 364: U-Nets of batch one."""
    one = small[0] | {"unet": parts.unet(small[1]["unet"], CELLS, batch=1)}

    found, wanted = (np.asarray(drawn(ours(c)), int) for c in (one, small[0]))

    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("scheduler", ["flow_euler", "flow_heun"])
def test_a_scheduler_of_flows_is_refused_for_a_network_that_predicts_noise(small, scheduler):
    with pytest.raises(BundleError, match="is for networks that predict a flow") as refused:
        drawn(ours(small[0]), scheduler=scheduler)

    assert "this bundle's predicts epsilon" in str(refused.value)
