"""ControlNets of Stable Diffusion XL, lowered: no known host runs them, only your own app can."""

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from sdbuild.recipe.recipe import load
from tests.families.references import predicted, psnr
from tests.inprocess import Steps
from tests.tiny_checkpoints import randomized, write_checkpoint

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SIDE_PX = 64
TIME_IDS = [64.0, 64.0, 0.0, 0.0, 64.0, 64.0]


def test_residuals_and_what_they_are_added_to_are_those_of_diffusers(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "xl", "sdxl")
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet").eval()
    net = randomized(ControlNetModel.from_unet(unet)).eval()
    net.save_pretrained(tmp_path / "edges")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'family = "sdxl"\nsource = "{checkpoint}"\ncontrolnet = "edges"\n'
                      f'size = {SIDE_PX}\ncomponents = ["unet"]\ncompiler = "portable"\n')
    made = Steps(load({"model": str(recipe)}), tmp_path)
    rng = torch.Generator().manual_seed(4)
    for timestep in (981.0, 1.0):
        given = {"sample": torch.randn(2, 4, 8, 8, generator=rng),
                 "timestep": torch.full((2,), timestep),
                 "encoder_hidden_states": torch.randn(2, 80, 1, 77, generator=rng)}
        added = {"time_ids": torch.tensor([TIME_IDS] * 2),
                 "text_embeds": torch.randn(2, 40, generator=rng)}
        picture = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=rng)
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
        assert min(psnr(found[name], residuals[name].numpy()) for name in residuals) >= 65
        assert psnr(noise["noise_pred"], wanted.numpy()) >= 62
