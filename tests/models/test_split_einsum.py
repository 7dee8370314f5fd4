"""The split layouts compute what diffusers' own network does, with the same parameters."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from sdbuild.base.errors import SourceError
from sdbuild.models import split_einsum, split_einsum_v2
from sdbuild.models.prediction import to_noise
from sdbuild.models.unet import UNet

TINY_EMOJI = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji" / "unet"
LAYOUTS = {"split_einsum": split_einsum, "split_einsum_v2": split_einsum_v2}
SMALL = {
    "block_out_channels": (32, 64), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SD_1_5 = SMALL | {"attention_head_dim": 4, "cross_attention_dim": 48}
SD_2_1 = SMALL | {
    "attention_head_dim": (2, 4), "cross_attention_dim": 64, "use_linear_projection": True,
    "upcast_attention": True,
}
SIDES = (24, 28)  # 672 tokens: a block of 512 queries, and one of the 160 that are left


def seeded(config, seed=1):
    """A network of diffusers with normal parameters; those of norms are not 1 and 0, either."""
    network = UNet2DConditionModel(**config).eval()
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=rng)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 9
        parameter.data = noise / fan_in**0.5 + ("norm" in name and name.endswith("weight"))
    return network


def tiny_emoji():
    network = UNet2DConditionModel.from_config(json.loads((TINY_EMOJI / "config.json").read_text()))
    network.load_state_dict(load_file(TINY_EMOJI / "diffusion_pytorch_model.safetensors"))
    return network.eval()


def laid_out(network, layout):
    """The network in a layout; the original keeps its parameters."""
    copy = UNet2DConditionModel.from_config(network.config).eval()
    copy.load_state_dict(network.state_dict())
    return LAYOUTS[layout].lay_out(UNet(copy))


def psnr_db(network, layout, timestep, sides):
    rng = torch.Generator().manual_seed(timestep)
    sample = torch.randn(2, 4, *sides, generator=rng)
    embeddings = torch.randn(2, 77, network.config.cross_attention_dim, generator=rng)
    steps = torch.full((2,), float(timestep))
    split = laid_out(network, layout)

    with torch.inference_mode():
        expected = network(sample, steps, embeddings).sample
        found = split(sample, steps, embeddings.transpose(1, 2).unsqueeze(2))

    error = (found - expected).square().mean().sqrt()
    return float(20 * torch.log10(expected.abs().max() / error))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [
    SD_1_5, SD_2_1, SD_1_5 | {"use_linear_projection": True},
    SD_2_1 | {"use_linear_projection": False}, SD_1_5 | {"attention_head_dim": 1},
    SD_1_5 | {"transformer_layers_per_block": 2},
], ids=["1.5", "2.1", "1.5 linear", "2.1 convolutions", "one head", "two layers"])
def test_a_layout_computes_what_diffusers_does(config, layout):
    assert psnr_db(seeded(config), layout, 501, SIDES) >= 90


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("timestep", [1, 981])
def test_it_does_so_with_the_weights_of_a_trained_network(layout, timestep):
    assert psnr_db(tiny_emoji(), layout, timestep, SIDES) >= 90


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_velocity_becomes_noise_in_every_layout(layout):
    convert = to_noise({"type": "v_prediction", "schedule": {}})
    net = seeded(SD_2_1)
    rng = torch.Generator().manual_seed(1)
    sample, prompt = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 64, 1, 7, generator=rng)
    timestep = torch.tensor([21.0, 981.0])

    with torch.inference_mode():
        velocity = net(sample, timestep, prompt[:, :, 0].transpose(1, 2)).sample
        found = LAYOUTS[layout].lay_out(UNet(net, convert))(sample, timestep, prompt)

    assert torch.allclose(found, convert(velocity, sample, timestep), atol=1e-4)


@pytest.mark.parametrize("config", [SD_1_5, SD_2_1])
def test_the_parameters_keep_their_names_and_shapes(config):
    network = seeded(config)

    found = laid_out(network, "split_einsum").net.state_dict()

    expected = network.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


@pytest.mark.parametrize("change, part", [
    ({"only_cross_attention": True}, "down_blocks.0.attentions.0.transformer_blocks.0"),
    ({"dual_cross_attention": True}, "down_blocks.0.attentions.0"),
    ({"attention_type": "gated"}, "down_blocks.0.attentions.0.transformer_blocks.0"),
    ({"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_proj"),
    ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "down_blocks.0.attentions.0"),
])
def test_a_network_that_attends_in_another_way_is_refused_by_the_name_of_the_part(change, part):
    with torch.device("meta"):
        network = UNet(UNet2DConditionModel(**SD_1_5 | change))

    with pytest.raises(SourceError, match=f"these parts of the network: {part}"):
        split_einsum.lay_out(network)
