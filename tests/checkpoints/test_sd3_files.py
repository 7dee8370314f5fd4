"""Stable Diffusion 3 in single files: names of its first code, and what shapes tell."""

import json

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.folder import Folder
from sdbuild.checkpoints.normalize import architecture
from sdbuild.checkpoints.single_file import SingleFile
from sdbuild.recipe.finding import find_recipe
from sdbuild.recipe.recipe import load
from tests.inprocess import Steps
from tests.single_files import ldm_vae, mmdit
from tests.tiny_checkpoints import THREE_BLOCKS, write_checkpoint

WIDTH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    vae = {"block_out_channels": [32] * 4, "norm_num_groups": 32}
    return write_checkpoint(tmp_path_factory.mktemp("sd3") / "folder", "sd3.5-medium", vae=vae,
                            transformer=THREE_BLOCKS)


@pytest.fixture(scope="module")
def first_names():
    return mmdit()


@pytest.fixture(scope="module")
def file(folder, first_names, tmp_path_factory):
    """A file with everything, as Stability AI's `…_incl_clips_t5xxl` is named."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in first_names.items()}
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "vae" / "config.json").read_text())
    tensors |= {f"first_stage_model.{name}": t for name, t in ldm_vae(vae, config).items()}
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"),
                       ("text_encoder_3", "t5xxl")):
        state = load_file(folder / part / "model.safetensors")
        tensors |= {f"text_encoders.{name}.transformer.{n}": t for n, t in state.items()}
    path = tmp_path_factory.mktemp("files") / "sd3.5_medium_incl_clips_t5xxl.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path


def test_a_transformer_has_the_tensors_that_diffusers_makes_of_it(file, first_names, tmp_path):
    wanted = convert_sd3_transformer_checkpoint_to_diffusers(dict(first_names))

    found = SingleFile(file).tensors("transformer")

    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert tensor.shape == wanted[name].shape
        assert b"".join(tensor.chunks()) == wanted[name].contiguous().numpy().tobytes(), name


@pytest.mark.parametrize("part", [
    "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"])
def test_configs_are_those_of_the_folder(folder, file, part):
    found, wanted = (architecture(part, each.config(part), "sd3")
                     for each in (SingleFile(file), Folder(folder)))

    for each in (found, wanted) if part in ("text_encoder", "text_encoder_2") else ():
        del each["config"]["num_attention_heads"]  # which are 64 wide, but not in tiny ones
    assert found == wanted


def test_scheduler_and_tokenizers_are_those_of_the_model(file):
    resources = SingleFile(file).resources()

    scheduler = json.loads(resources["scheduler/scheduler_config.json"])
    pads = [json.loads(resources[f"{name}/special_tokens_map.json"])["pad_token"]
            for name in ("tokenizer", "tokenizer_2")]
    assert scheduler["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert scheduler["shift"] == 3.0
    assert pads == ["<|endoftext|>", "!"]


def test_a_clip_without_its_projection_is_one_that_needs_none(file, tmp_path):
    tensors = load_file(file)
    del tensors["text_encoders.clip_l.transformer.text_projection.weight"]
    path = tmp_path / "sd3.safetensors"
    save_file(tensors, path)

    assert SingleFile(path).config("text_encoder")["architectures"] == ["CLIPTextModel"]


def test_a_file_of_stable_diffusion_3_is_no_stable_diffusion_1(file):
    with pytest.raises(SourceError, match="is of Stable Diffusion 3") as caught:
        SingleFile(file).tensors("unet")

    assert 'family = "sd3"' in caught.value.hint


def test_a_file_without_text_encoders_says_which_it_lacks(first_names, tmp_path):
    path = tmp_path / "sd3.5_medium.safetensors"
    save_file({f"model.diffusion_model.{name}": t for name, t in first_names.items()}, path)

    with pytest.raises(SourceError, match=r"it has no text_encoder_3: .*it has a transformer\n"):
        SingleFile(path).tensors("text_encoder_3")


def test_a_file_of_first_names_makes_the_component_that_its_folder_makes(
    file, first_names, tmp_path,
):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'family = "sd3"\nsource = "{file}"\nsize = 128\n'
                      'components = ["transformer"]\ncompiler = "portable"\n')

    made = load_file(Steps(load({"model": str(recipe)}), tmp_path)["download:transformer"]
                     / "weights.safetensors")

    assert torch.equal(made["norm_out.linear.weight"][:WIDTH],
                       first_names["final_layer.adaLN_modulation.1.weight"][WIDTH:])


@pytest.mark.parametrize(("style", "words"), [
    ("sd3", "blocks of 32 channels"),
    ("sd3.5-medium", "its first blocks look at the picture twice"),
    ("sd3.5-large", "its queries are normalized"),
])
def test_a_checkpoint_without_a_recipe_is_known_by_its_transformer(tmp_path, style, words):
    place = write_checkpoint(tmp_path / style, style)

    found = find_recipe([str(place)], "", {}, prediction_type=None, size=None)

    assert (found.family, found.size) == ("sd3", (128, 128))
    assert words in found.because


def test_the_published_models_have_their_recipes(tmp_path):
    """The configs of stabilityai's repositories, as far as they tell the models apart."""
    place = write_checkpoint(tmp_path / "mine", "sd3.5-medium")
    for recipe, heads, dual, norm in (("sd-3-medium", 24, [], None),
                                      ("sd-3-5-medium", 24, list(range(13)), "rms_norm"),
                                      ("sd-3-5-large", 38, [], "rms_norm")):
        (place / "transformer" / "config.json").write_text(json.dumps({
            "_class_name": "SD3Transformer2DModel", "num_attention_heads": heads,
            "attention_head_dim": 64, "joint_attention_dim": 4096, "sample_size": 128,
            "dual_attention_layers": dual, "qk_norm": norm}))

        found = find_recipe([str(place)], "", {}, prediction_type=None, size=None)

        assert found.model == recipe


def test_another_transformer_is_refused_by_its_name(tmp_path):
    place = write_checkpoint(tmp_path / "flux", "sd3")
    (place / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')

    with pytest.raises(SourceError, match="'FluxTransformer2DModel', a transformer, as FLUX"):
        find_recipe([str(place)], "", {}, prediction_type=None, size=None)
