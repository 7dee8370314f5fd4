"""A checkpoint that is given without a model gets the recipe of its own architecture, or asks."""

import re
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.base.errors import RecipeError, SDBuildError, SourceError
from sdbuild.engine.plan import plan
from sdbuild.recipe.finding import PUBLISHED
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.recipe.settings import settings
from tests.single_files import CONFIGS, config_of, folder_of, hollow, single_file, write

TINY_EMOJI = BUILT_IN / "tiny-emoji"
V1, V2 = "stable-diffusion-v1-5", "stable-diffusion-2-1"
XL = "stable-diffusion-xl-base-1.0"
ASKS_WHAT = "it does not say what its U-Net predicts"


def true_shaped(model, kind):
    """The tensors of a published model as a single file, without numbers."""
    parts = {part: config_of(CONFIGS / model, part) for part in ("unet", "vae", "text_encoder")}
    with torch.device("meta"):
        networks = {"unet": UNet2DConditionModel.from_config(parts["unet"]),
                    "vae": AutoencoderKL.from_config(parts["vae"]),
                    "text_encoder": CLIPTextModel(CLIPTextConfig(**parts["text_encoder"]))}
        states = {part: network.state_dict() for part, network in networks.items()}
        return single_file((states["unet"], parts["unet"]), (states["vae"], parts["vae"]),
                           (states["text_encoder"], kind))


@pytest.fixture(scope="module")
def v1():
    return true_shaped(V1, "clip")


@pytest.fixture(scope="module")
def v2():
    return true_shaped(V2, "open_clip")


def taken(source, **words):
    """The recipe and size that are taken, by the recipe's settings and not by its name."""
    recipe = load({"source": str(source)} | words)
    assert recipe.sources.checkpoint.places == (str(source),)
    [named] = re.findall(r"^(sd-[^,]+|sdxl-[^,]+|defaults)", recipe.found)
    return named, (recipe.network.width_px, recipe.network.height_px)


def asked(source, **words):
    with pytest.raises(RecipeError) as caught:
        load({"source": str(source)} | words)
    return caught.value


def test_a_file_of_1_5_gets_its_recipe_and_its_own_name(v1, tmp_path):
    file = hollow(tmp_path / "dreamy.safetensors", v1)

    found = settings({"source": str(file)})
    usual = load({"model": "sd-1-5"})

    assert taken(file) == ("sd-1-5", (512, 512))
    assert re.fullmatch("dreamy-512x512-original-6bit-2chunks-iOS16-[0-9a-f]{6}",
                        found.bundle.name)
    assert (found.recipe.name, found.out.name) == ("dreamy", "dreamy.png")
    assert (found.recipe.draw, found.recipe.check.floors) == (usual.draw, usual.check.floors)
    assert [c.name for c in found.recipe.components] == [
        "text_encoder", "unet", "vae_decoder", "vae_encoder"]  # a file has no safety checker
    assert "prompts 768 wide, blocks of 320, 640, 1280, 1280 channels" in found.recipe.found


@pytest.mark.parametrize(("metadata", "recipe"), [
    ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, ("sd-2-1", (768, 768))),
    ({"modelspec.prediction_type": "v"}, ("sd-2-1", (768, 768))),
    ({"modelspec.architecture": "stable-diffusion-v2-512"}, ("sd-2-1-base", (512, 512))),
    ({"modelspec.prediction_type": "epsilon"}, ("sd-2-1-base", (512, 512))),
])
def test_a_file_of_2_gets_the_recipe_that_its_metadata_decide(v2, tmp_path, metadata, recipe):
    assert taken(hollow(tmp_path / "a.safetensors", v2, metadata)) == recipe


def test_a_file_of_2_with_the_mark_of_velocity_is_made_for_768(v2, tmp_path):
    file = hollow(tmp_path / "a.safetensors", v2 | {"v_pred": torch.ones(1)})

    assert taken(file) == ("sd-2-1", (768, 768))


def test_a_file_of_2_that_does_not_say_asks_for_the_word_that_decides(v2, tmp_path):
    file = hollow(tmp_path / "a.safetensors", v2)

    for words in ({}, {"size": "768"}, {"quant": "none"}):
        error = asked(file, **words)
        assert error.message.startswith(f"{file}: {ASKS_WHAT}")
        assert "prediction_type=v_prediction size=768 if it was made from sd-2-1" in error.hint
        assert "prediction_type=epsilon size=512 if it was made from sd-2-1-base" in error.hint
    assert taken(file, prediction_type="v_prediction") == ("sd-2-1", (768, 768))
    assert taken(file, prediction_type="epsilon") == ("sd-2-1-base", (512, 512))
    assert taken(file, prediction_type="epsilon", size="768") == ("sd-2-1-base", (768, 768))


@pytest.mark.parametrize(("model", "predicts", "sample_size", "recipe"), [
    (V1, {}, 64, ("sd-1-5", (512, 512))),  # schedulers that do not say predict noise
    (V1, {"prediction_type": "v_prediction"}, 64, ("sd-1-5", (512, 512))),
    (V1, {}, None, ("sd-1-5", (512, 512))),
    (V2, {"prediction_type": "v_prediction"}, 96, ("sd-2-1", (768, 768))),
    (V2, {"prediction_type": "v_prediction"}, [96, 96], ("sd-2-1", (768, 768))),
    (V2, {"prediction_type": "epsilon"}, 64, ("sd-2-1-base", (512, 512))),
    (V2, {}, 64, ("sd-2-1-base", (512, 512))),
    (XL, {}, 128, ("sdxl-base", (1024, 1024))),
])
def test_the_configs_of_a_folder_decide(tmp_path, model, predicts, sample_size, recipe):
    folder = folder_of(tmp_path / "mine", model, predicts, sample_size=sample_size)

    assert taken(folder) == recipe


@pytest.mark.parametrize(("model", "unet", "recipe", "why"), [
    (V1, {"in_channels": 9}, "sd-1-5-inpaint", "it takes a mask"),
    (V1, {"time_cond_proj_dim": 256}, "sd-1-5-lcm", "it takes its guidance as an input"),
    (V2, {"in_channels": 9, "sample_size": 64}, "sd-2-inpaint", "it takes a mask"),
    (XL, {"in_channels": 9}, "sdxl-inpaint", "it takes a mask"),
])
def test_what_a_unet_takes_beside_a_prompt_decides_too(tmp_path, model, unet, recipe, why):
    folder = folder_of(tmp_path / "mine", model, {"prediction_type": "epsilon"}, **unet)

    assert taken(folder)[0] == recipe
    assert why in load({"source": str(folder)}).found


def test_the_refiner_of_xl_is_known_by_its_shape_and_its_one_text_encoder(tmp_path):
    folder = folder_of(tmp_path / "mine", XL, {}, cross_attention_dim=1280,
                       block_out_channels=[384, 768, 1536, 1536])
    shutil.rmtree(folder / "text_encoder")

    recipe = load({"source": str(folder)})

    assert (taken(folder)[0], recipe.family.name) == ("sdxl-refiner", "sdxl-refiner")


def test_an_unknown_architecture_of_xl_gets_the_defaults_of_its_family_without_a_refiner(tmp_path):
    folder = folder_of(tmp_path / "mine", XL, {}, block_out_channels=[32, 64, 64])

    recipe = load({"source": str(folder)})

    assert taken(folder) == ("defaults", (1024, 1024))
    assert [c.name for c in recipe.components] == [
        "text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"]


@pytest.mark.parametrize(("model", "predicts", "sample_size", "sizes"), [
    (V1, "epsilon", 96, (512, 768)),
    (V1, "epsilon", 32, (512, 256)),
    (V2, "v_prediction", 64, (768, 512)),
    (V2, "epsilon", 96, (512, 768)),
])
def test_a_folder_whose_configs_say_two_sizes_asks_which(
    tmp_path, model, predicts, sample_size, sizes,
):
    """Converters wrote such configs; followed, they draw at a size the model never saw."""
    folder = folder_of(tmp_path / "mine", model, {"prediction_type": predicts},
                       sample_size=sample_size)

    trained, said = sizes
    assert asked(folder).hint == (
        f"size={trained} or size={said}x{said}, whichever it was trained at")
    assert taken(folder, size="640")[1] == (640, 640)


def test_the_users_word_wins_over_a_scheduler_that_is_wrong(tmp_path):
    folder = folder_of(tmp_path / "mine", V2, {"prediction_type": "epsilon"}, sample_size=96)

    assert taken(folder, prediction_type="v_prediction") == ("sd-2-1", (768, 768))


def test_a_safety_checker_stays_where_there_is_one(tmp_path):
    folder = folder_of(tmp_path / "mine", V1, {})
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")

    assert "safety_checker" in [c.name for c in load({"source": str(folder)}).components]
    named = load({"source": str(folder), "components": "unet"}).components
    assert [c.name for c in named] == ["unet"]


def test_an_architecture_of_no_published_model_gets_the_defaults_at_the_size_of_its_config():
    recipe = load({"source": str(TINY_EMOJI)})
    wide = load({"source": str(TINY_EMOJI), "size": "64x72"})

    assert taken(TINY_EMOJI) == ("defaults", (128, 128))  # sample_size 16, three halvings
    assert (wide.network.width_px, wide.network.height_px) == (64, 72)
    assert (recipe.packaging.nbits, recipe.packaging.chunks, recipe.request.prompt) == (
        None, 1, "a photograph of a cat")
    assert recipe.check.floors["unet"].at(6) == 25


def test_a_pair_of_sample_sizes_is_height_and_width_as_in_diffusers(tmp_path):
    folder = folder_of(tmp_path / "mine", V1, {}, sample_size=[64, 96],
                       block_out_channels=[32, 64, 64, 64])

    assert taken(folder) == ("defaults", (768, 512))


def test_an_unknown_architecture_without_a_size_asks_for_it(tmp_path):
    states = {part: load_file(next((TINY_EMOJI / part).glob("*.safetensors")))
              for part in ("unet", "vae", "text_encoder")}
    parts = [(states[part], config_of(TINY_EMOJI, part)) for part in ("unet", "vae")]
    file = write(tmp_path / "a.safetensors", single_file(*parts, (states["text_encoder"], "clip")))
    folder = folder_of(tmp_path / "b", V1, {}, sample_size=None, block_out_channels=[32, 64])

    assert asked(folder).hint == "size=512, or what it was trained at"
    assert taken(folder, size="512") == ("defaults", (512, 512))
    assert taken(file, config=str(TINY_EMOJI)) == ("defaults", (128, 128))


@pytest.mark.parametrize("words", [{}, {"vae": "x"}, {"lora": "x"}, {"size": "64"}])
def test_what_is_no_checkpoint_keeps_the_default_recipe(words):
    recipe = load(words)

    assert (recipe.name, recipe.found) == ("tiny-emoji", "")


def test_a_model_that_is_named_is_taken_whatever_the_checkpoint_is(tmp_path):
    recipe = load({"source": str(tmp_path / "none.safetensors"), "model": "sd-2-1"})

    assert (recipe.name, recipe.network.width_px, recipe.found) == ("sd-2-1", 768, "")


@pytest.mark.parametrize(("source", "message"), [
    ("none.safetensors", "there is no such file"), ("none", "there is no such folder"),
    ("README.md", "expected a folder or a .safetensors file"),
])
def test_a_source_that_is_not_there_is_named(source, message):
    with pytest.raises(SourceError, match=message):
        load({"source": source})


@pytest.mark.parametrize("change", [
    {"sample_size": 10**18}, {"sample_size": True}, {"sample_size": [64, "64"]},
    {"sample_size": {}}, {"cross_attention_dim": {"a": [1]}}, {"cross_attention_dim": [768]},
    {"block_out_channels": 320}, {"block_out_channels": []}, {"block_out_channels": [[]]},
    {"block_out_channels": list(range(99))},
])
def test_configs_with_absurd_values_take_no_published_recipe_by_accident(tmp_path, change):
    folder = folder_of(tmp_path / "mine", V1, {"prediction_type": ["v"]}, **change)

    try:
        assert taken(folder, size="512")[0] in ("defaults", "sd-1-5")
        assert set(change) == {"sample_size"}
    except SDBuildError as error:
        assert ASKS_WHAT in error.message


def test_the_table_and_the_recipes_say_the_same_size():
    for model in PUBLISHED:
        recipe = load({"model": model.recipe})
        assert (recipe.network.width_px, recipe.network.height_px) == (model.side_px, model.side_px)


def manifest_fields(words):
    """Returns the fields of the recipe that a bundle's manifest has and its parts do not show."""
    return plan(load(words)).steps["bundle"].params


def test_the_manifest_says_which_recipe_was_found_and_nothing_where_one_was_named(tmp_path):
    folder = folder_of(tmp_path / "mine", V1, {"prediction_type": "epsilon"})
    other = folder_of(tmp_path / "other", V1, {}, sample_size=None, block_out_channels=[32, 64])

    assert manifest_fields({"source": str(folder)})["recipe"] == "sd-1-5"
    assert manifest_fields({"source": str(other), "size": "512"})["recipe"] == "sd"
    assert "recipe" not in manifest_fields({"source": str(folder), "model": "sd-1-5"})
    assert "recipe" not in manifest_fields({})
