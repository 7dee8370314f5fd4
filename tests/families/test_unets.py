"""U-Nets that take more than noise and a prompt: inpainting's, and those distilled with guidance.
"""

import json

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline

from sdbuild.base.errors import SourceError
from sdbuild.models.unet import guidance_embedding
from sdbuild.recipe.recipe import load
from tests.families.references import predicted, psnr, unet_cases
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export
GROUPS = {"norm_num_groups": 8}  # several channels each, as in the true ones


def steps(tmp_path, style, unet, **words):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", style, unet=GROUPS | unet)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'family = "{style.rstrip("12")}"\nsource = "{checkpoint}"\nsize = 128\n'
                      'components = ["unet"]\ncompiler = "portable"\n')
    return checkpoint, Steps(load({"model": str(recipe)} | words), tmp_path)


def ports(compiled):
    [found] = json.loads((compiled / "Unet.mlmodelc" / "metadata.json").read_text())
    return {p["name"]: json.loads(p["shape"])
            for p in (*found["inputSchema"], *found["outputSchema"])}


@pytest.mark.slow
@pytest.mark.parametrize(("style", "attention", "least_db"), [
    ("sd1", "split_einsum", 62), ("sdxl", "original", 65),
])
def test_an_inpainting_unet_takes_nine_channels_and_gives_four(
        tmp_path, style, attention, least_db):
    checkpoint, made = steps(tmp_path, style, {"in_channels": 9}, attention=attention)
    numbers = {"time_ids": [128.0, 128, 0, 0, 128, 128]} if style == "sdxl" else {}

    compiled = made["compile:unet"]

    assert (ports(compiled)["sample"], ports(compiled)["noise_pred"]) == (
        [2, 9, 16, 16], [2, 4, 16, 16])
    for inputs, wanted in unet_cases(checkpoint, **numbers):
        assert psnr(predicted(compiled, inputs)["noise_pred"], wanted.numpy()) >= least_db


@pytest.mark.parametrize("width", [32, 256, 33])
@pytest.mark.parametrize("guidance", [1.0, 8.5, 4.2])
def test_the_embedding_of_guidance_is_the_one_of_diffusers_pipeline(guidance, width):
    wanted = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor([guidance - 1]), width)

    assert torch.allclose(guidance_embedding(guidance, width), wanted, atol=1e-5)


@pytest.mark.slow
def test_guidance_that_a_unet_takes_as_an_input_is_built_in_and_bound_as_coremltools_does(tmp_path):
    guidance = {"distilled_guidance": "4"}
    checkpoint, made = steps(tmp_path, "sd1", {"time_cond_proj_dim": 32}, **guidance)
    direct = Steps(load({"model": str(tmp_path / "mine.toml"), "lower": "direct"} | guidance),
                   tmp_path)
    embedding = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor([3.0]), 32)

    compiled = made["compile:unet"]
    weights = [np.fromfile(folder / "Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
                           np.uint8) for folder in (made["convert:unet"], direct["convert:unet"])]

    assert ports(compiled).keys() == {"sample", "timestep", "encoder_hidden_states", "noise_pred"}
    for inputs, wanted in unet_cases(checkpoint, timestep_cond=embedding.repeat(2, 1)):
        assert psnr(predicted(compiled, inputs)["noise_pred"], wanted.numpy()) >= 65
    assert np.array_equal(*weights)


def test_guidance_for_a_unet_that_takes_none_is_refused(tmp_path):
    _, made = steps(tmp_path, "sd1", {}, distilled_guidance="4")

    with pytest.raises(SourceError, match="distilled_guidance=4: the U-Net takes no guidance"):
        made["trace:unet"]
