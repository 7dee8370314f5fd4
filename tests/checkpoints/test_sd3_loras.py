"""LoRAs for the transformer of Stable Diffusion 3."""

import json

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.loras import lora
from sdbuild.recipe.recipe import load
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint

LAYERS = ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_out.0",
          "transformer_blocks.2.attn.add_k_proj", "transformer_blocks.0.attn2.to_v",
          "transformer_blocks.1.ff_context.net.0.proj")
RANK = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("sd3") / "folder", "sd3.5-medium")


def factors(place):
    """Both factors of each layer's change, by peft's names."""
    shapes = {name: tensor.shape for name, tensor in load_file(
        place / "transformer" / "diffusion_pytorch_model.safetensors").items()}
    rng, found = torch.Generator().manual_seed(9), {}
    for layer in LAYERS:
        out, into = shapes[f"{layer}.weight"]
        found[f"transformer.{layer}.lora_A.weight"] = torch.randn(RANK, into, generator=rng)
        found[f"transformer.{layer}.lora_B.weight"] = torch.randn(out, RANK, generator=rng)
    return found


def kohya(tensors):
    """The same by the names that have no dots, with the strength that peft has without any."""
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.removesuffix(".weight").rpartition(".")
        flat = "lora_transformer_" + layer.removeprefix("transformer.").replace(".", "_")
        found[f"{flat}.{'lora_down' if kind == 'lora_A' else 'lora_up'}.weight"] = tensor
        found[f"{flat}.alpha"] = torch.tensor(float(RANK))
    return found


@pytest.mark.parametrize("names", [dict, kohya])
def test_a_lora_is_merged_as_diffusers_fuses_it(place, tmp_path, names):
    tensors = factors(place)
    net = SD3Transformer2DModel.from_pretrained(place / "transformer")
    net.load_lora_adapter(dict(tensors), prefix="transformer")
    net.fuse_lora(lora_scale=0.7)
    net.unload_lora()
    save_file(names(tensors), tmp_path / "mine.safetensors")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'family = "sd3"\nsource = "{place}"\nsize = 128\n'
                      f'lora = ["{tmp_path}/mine.safetensors:0.7"]\n'
                      f'components = {json.dumps(["transformer"])}\ncompiler = "portable"\n')

    merged = Steps(load({"model": str(recipe)}), tmp_path)["merge:transformer"]

    found, wanted = load_file(merged / "weights.safetensors"), net.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in found)


@pytest.mark.parametrize(("family", "layer", "what"), [
    ("sd3", "unet.mid_block.attentions.0.proj_in", "Stable Diffusion 1, 2 or XL"),
    ("sd", "transformer.transformer_blocks.0.attn.to_q", "Stable Diffusion 3"),
    ("sdxl", "transformer.transformer_blocks.0.attn.to_q", "Stable Diffusion 3"),
])
def test_a_lora_of_another_family_is_refused(tmp_path, family, layer, what):
    file = tmp_path / "other.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 4),
               f"{layer}.lora_B.weight": torch.ones(4, 2)}, file)

    with pytest.raises(SourceError, match=f"is made for {what}: it changes"):
        lora.expect_family(file, lora.read(file), family)
