"""LoRAs for the transformer of Stable Diffusion 3."""

import json

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.loras import lora
from sdbuild.recipe.recipe import load
from tests.inprocess import Steps
from tests.loras import merge
from tests.single_files import mmdit
from tests.tiny_checkpoints import THREE_BLOCKS, write_checkpoint

LAYERS = ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_out.0",
          "transformer_blocks.2.attn.add_k_proj", "transformer_blocks.0.attn2.to_v",
          "transformer_blocks.1.ff_context.net.0.proj")
RANK = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("sd3") / "folder", "sd3.5-medium",
                            transformer=THREE_BLOCKS)


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


def flat(layer):
    """As sd-scripts names it."""
    return f"lora_unet_{layer.replace('.', '_')}", "lora_down", "lora_up"


def dotted(layer):
    """As ComfyUI names it."""
    return f"diffusion_model.{layer}", "lora_A", "lora_B"


FIRST_LAYERS = (
    "joint_blocks.0.x_block.attn.qkv", "joint_blocks.1.x_block.attn2.qkv",
    "joint_blocks.2.context_block.attn.qkv", "joint_blocks.0.context_block.attn.proj",
    "joint_blocks.1.context_block.mlp.fc1", "joint_blocks.1.context_block.adaLN_modulation.1",
    "joint_blocks.2.context_block.adaLN_modulation.1", "final_layer.adaLN_modulation.1",
    "final_layer.linear", "context_embedder", "t_embedder.mlp.2",
)


@pytest.mark.parametrize("named", [flat, dotted])
def test_a_lora_by_the_names_of_the_first_code_changes_what_diffusers_makes_of_it(tmp_path, named):
    """Query, key and value are one layer there, and some norms have their halves exchanged."""
    weights, rng, factors = mmdit(), torch.Generator().manual_seed(5), {}
    changed = dict(weights)
    for layer in FIRST_LAYERS:
        out, into = weights[f"{layer}.weight"].shape
        down, up = (torch.randn(shape, generator=rng) for shape in ((RANK, into), (out, RANK)))
        name, below, above = named(layer)
        factors |= {f"{name}.{below}.weight": down, f"{name}.{above}.weight": up,
                    f"{name}.alpha": torch.tensor(1.0)}
        changed[f"{layer}.weight"] = weights[f"{layer}.weight"] + 0.7 / RANK * up @ down
    save_file(factors, tmp_path / "mine.safetensors")
    (tmp_path / "base").mkdir()
    save_file({name: tensor.contiguous() for name, tensor in
               convert_sd3_transformer_checkpoint_to_diffusers(weights).items()},
              tmp_path / "base" / "weights.safetensors")
    (tmp_path / "base" / "architecture.json").write_text("{}")

    found, facts = merge(tmp_path / "base", tmp_path / "merged",
                         [(tmp_path / "mine.safetensors", 0.7)], "transformer")

    wanted = convert_sd3_transformer_checkpoint_to_diffusers(changed)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in found)
    assert facts["merged"] == [len(FIRST_LAYERS) + 2 * 3]


@pytest.mark.parametrize(("tensors", "what"), [
    ({"lora_down": (2, 32), "lora_up": (95, 2)}, "its shapes do not fit"),
    ({"lora_down": (2, 32), "lora_up": (96, 2), "dora_scale": (96, 1)},
     "is a DoRA of layers that are several"),
])
def test_a_lora_that_fits_no_third_of_a_joint_layer_is_refused(tmp_path, tensors, what):
    name = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    save_file({f"{name}.{role}{'' if role == 'dora_scale' else '.weight'}": torch.ones(shape)
               for role, shape in tensors.items()}, tmp_path / "mine.safetensors")
    found = lora.read(tmp_path / "mine.safetensors").updates["transformer"]
    shapes = {f"transformer_blocks.0.attn.to_{letter}.weight": (32, 32) for letter in "qkv"}

    with pytest.raises(SourceError, match=what):
        lora.matched("mine", found, shapes)


@pytest.mark.parametrize(("family", "layer", "what"), [
    ("sd3", "unet.mid_block.attentions.0.proj_in", "Stable Diffusion 1, 2 or XL"),
    ("sd", "transformer.transformer_blocks.0.attn.to_q", "Stable Diffusion 3"),
    ("sdxl", "diffusion_model.joint_blocks.0.x_block.attn.qkv", "Stable Diffusion 3"),
    ("sdxl", "transformer.transformer_blocks.0.attn.to_q", "Stable Diffusion 3"),
])
def test_a_lora_of_another_family_is_refused(tmp_path, family, layer, what):
    file = tmp_path / "other.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 4),
               f"{layer}.lora_B.weight": torch.ones(4, 2)}, file)

    with pytest.raises(SourceError, match=f"is made for {what}: it changes"):
        lora.expect_family(file, lora.read(file), family)
