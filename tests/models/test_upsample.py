"""Doubling and cutting is what diffusers' upsampling to a size does, number for number."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D

from sdbuild.models.unet import UNet
from sdbuild.models.upsample import Upsample, replace_upsamples
from tests.tiny_checkpoints import FOUR_LEVELS, STYLES, randomized


@pytest.mark.parametrize("size", [None, (10, 14), (9, 14), (10, 13), (9, 13)])
def test_it_gives_the_numbers_of_diffusers(size):
    original = Upsample2D(4, use_conv=True)
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))

    assert torch.equal(Upsample(original)(x, size), original(x, size))


@pytest.mark.parametrize("cells", [(8, 8), (9, 8), (11, 13), (8, 12)])
def test_a_unet_draws_any_size_of_latents_as_diffusers_does(cells):
    """8, 9, 11, 13: what the three halvings of 64, 72, 88 and 104 pixels leave is odd somewhere."""
    net = randomized(UNet2DConditionModel(**STYLES["sd2"]["unet"] | FOUR_LEVELS | {
        "attention_head_dim": (1, 2, 2, 4)}))
    ours = UNet(copy.deepcopy(net))
    replace_upsamples(ours)
    rng = torch.Generator().manual_seed(1)
    sample, prompt = torch.randn(2, 4, *cells, generator=rng), torch.randn(2, 7, 48, generator=rng)
    timestep = torch.tensor([21., 21.])

    with torch.inference_mode():
        wanted = net(sample, timestep, prompt).sample
        found = ours(sample, timestep, prompt.transpose(1, 2)[:, :, None])

    assert not any(isinstance(module, Upsample2D) for module in ours.modules())
    assert torch.allclose(found, wanted, atol=1e-5)
