"""ControlNets and the U-Net that takes what they give, as diffusers computes them."""

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.normalized import Architecture
from sdbuild.families import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from sdbuild.models import (
    controlled_unet,
    controlled_unet_xl,
    controlnet,
    controlnet_xl,
    network,
)
from sdbuild.models.residuals import shapes
from tests.tiny_checkpoints import FOUR_LEVELS, STYLES, randomized

NET, CONTROLLED = (STABLE_DIFFUSION.component(n) for n in ("controlnet", "controlled_unet"))
PARAMS = {"batch": 2, "height_px": 72, "width_px": 64}


def unet_config(**changes):
    return STYLES["sd1"]["unet"] | FOUR_LEVELS | {"act_fn": "silu"} | changes


def net_config(**changes):
    names = ("block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim",
             "attention_head_dim")
    return {name: unet_config()[name] for name in names} | changes


def of(config, kind=ControlNetModel):
    torch.manual_seed(3)
    return randomized(kind(**config))


def architecture(net):
    return Architecture(class_name=type(net).__name__, config=dict(net.config))


@pytest.mark.parametrize("config", [
    net_config(), net_config(layers_per_block=2),
    net_config(block_out_channels=(32, 64, 64), down_block_types=(
        "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")),
], ids=["as 1.5", "two layers", "as XL"])
@pytest.mark.parametrize("h, w", [(8, 8), (9, 11)])
def test_the_residuals_are_those_that_diffusers_makes(config, h, w):
    net = of(config)
    with torch.inference_mode():
        down, mid = net(torch.zeros(2, 4, h, w), 1, torch.zeros(2, 77, 32),
                        torch.zeros(2, 3, 8 * h, 8 * w), return_dict=False)

    found = shapes(net.config, {"B": 2, "h": h, "w": w})

    assert found == [tuple(t.shape) for t in (*down, mid)]


def test_a_controlnet_gives_what_diffusers_gives():
    net = of(net_config())
    found = architecture(net)
    dims = network.dims(NET, found, PARAMS)
    ours = controlnet.ControlNet(net)
    for sample, timestep, embeddings, picture in controlnet.samples(
            NET, found.config, dims, torch.Generator().manual_seed(0)):
        with torch.inference_mode():
            down, mid = net(sample, timestep, embeddings[:, :, 0].mT, picture, return_dict=False)
            made = ours(sample, timestep, embeddings, picture)

        assert all(torch.equal(a, b) for a, b in zip(made, (*down, mid), strict=True))


def test_the_controlled_unet_adds_what_diffusers_adds():
    net = of(unet_config(), UNet2DConditionModel)
    found = architecture(net)
    dims = network.dims(CONTROLLED, found, PARAMS)
    ours = controlled_unet.ControlledUNet(net)
    inputs = next(controlled_unet.samples(
        CONTROLLED, found.config, dims, torch.Generator().manual_seed(0)))
    sample, timestep, embeddings, *residuals = inputs
    with torch.inference_mode():
        wanted = net(sample, timestep, embeddings[:, :, 0].mT,
                     down_block_additional_residuals=tuple(residuals[:-1]),
                     mid_block_additional_residual=residuals[-1], return_dict=False)[0]
        plain = net(sample, timestep, embeddings[:, :, 0].mT, return_dict=False)[0]
        made = ours(*inputs)

    assert torch.equal(made, wanted)
    assert not torch.allclose(made, plain, atol=1e-2)
    assert [tuple(t.shape) for t in inputs] == network.input_shapes(CONTROLLED, found, dims)


def test_ports_in_number_are_called_as_hosts_call_them():
    net = NET.with_ports(4, 10)

    assert [port.name for port in net.outputs] == [f"additional_residual_{n}" for n in range(10)]
    assert net.inputs == NET.inputs
    assert CONTROLLED.with_ports(3 + 13, 1).inputs[-1].name == "additional_residual_12"


def test_a_controlnet_that_averages_its_residuals_is_refused():
    found = Architecture(class_name="ControlNetModel", config={"global_pool_conditions": True})

    with pytest.raises(SourceError, match="averaged"):
        network.weightless(NET, found)


XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
      "projection_class_embeddings_input_dim": 40 + 6 * 8}


def test_a_controlnet_of_xl_gives_what_diffusers_gives():
    net = of(net_config(**XL))
    component = STABLE_DIFFUSION_XL.component("controlnet")
    found = architecture(net)
    dims = network.dims(component, found, PARAMS)
    inputs = next(controlnet_xl.samples(
        component, found.config, dims, torch.Generator().manual_seed(0)))
    sample, timestep, embeddings, time_ids, text_embeds, picture = inputs
    with torch.inference_mode():
        down, mid = net(sample, timestep, embeddings[:, :, 0].mT, picture, return_dict=False,
                        added_cond_kwargs={"time_ids": time_ids, "text_embeds": text_embeds})
        made = controlnet_xl.ControlNetXL(net)(*inputs)

    assert text_embeds.shape == (2, 40)
    assert all(torch.equal(a, b) for a, b in zip(made, (*down, mid), strict=True))
    assert [tuple(each.shape) for each in made] == controlnet_xl.residuals(found.config, dims)


def test_the_controlled_unet_of_xl_adds_what_diffusers_adds():
    net = of(unet_config(**XL), UNet2DConditionModel)
    component = STABLE_DIFFUSION_XL.component("controlled_unet")
    found = architecture(net)
    dims = network.dims(component, found, PARAMS)
    inputs = next(controlled_unet_xl.samples(
        component, found.config, dims, torch.Generator().manual_seed(0)))
    sample, timestep, embeddings, time_ids, text_embeds, *residuals = inputs
    with torch.inference_mode():
        wanted = net(sample, timestep, embeddings[:, :, 0].mT,
                     added_cond_kwargs={"time_ids": time_ids, "text_embeds": text_embeds},
                     down_block_additional_residuals=tuple(residuals[:-1]),
                     mid_block_additional_residual=residuals[-1], return_dict=False)[0]
        made = controlled_unet_xl.ControlledUNetXL(net)(*inputs)

    assert torch.equal(made, wanted)
