"""ControlNets of Stable Diffusion XL, lowered: no known host runs them, only your own app can."""

import pytest
import torch

from tests.families.references import predicted, psnr, with_controlnet

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
WIDTH, HEIGHT = 64, 96
TIME_IDS = [96.0, 64.0, 0.0, 0.0, 96.0, 64.0]


def test_residuals_and_what_they_are_added_to_are_those_of_diffusers(tmp_path):
    _, unet, net, made = with_controlnet(tmp_path, "sdxl", "sdxl", f"{WIDTH}x{HEIGHT}")
    rng = torch.Generator().manual_seed(4)
    for timestep in (981.0, 1.0):
        given = {"sample": torch.randn(2, 4, HEIGHT // 8, WIDTH // 8, generator=rng),
                 "timestep": torch.full((2,), timestep),
                 "encoder_hidden_states": torch.randn(2, 80, 1, 77, generator=rng)}
        added = {"time_ids": torch.tensor([TIME_IDS] * 2),
                 "text_embeds": torch.randn(2, 40, generator=rng)}
        picture = torch.rand(2, 3, HEIGHT, WIDTH, generator=rng)
        rows = given["encoder_hidden_states"][:, :, 0].mT
        positional = (given["sample"], given["timestep"], rows)
        with torch.inference_mode():
            down, mid = net(*positional, picture, added_cond_kwargs=added, return_dict=False)
            wanted = unet(*positional, added_cond_kwargs=added,
                          down_block_additional_residuals=down, mid_block_additional_residual=mid,
                          return_dict=False)[0]

        found = predicted(made["compile:controlnet/Edges"],
                          given | added | {"controlnet_cond": picture})
        residuals = {f"additional_residual_{i}": t for i, t in enumerate((*down, mid))}
        noise = predicted(made["compile:controlled_unet"], given | added | residuals)

        assert found.keys() == residuals.keys()
        assert min(psnr(found[name], residuals[name].numpy()) for name in residuals) >= 68
        assert psnr(noise["noise_pred"], wanted.numpy()) >= 65
