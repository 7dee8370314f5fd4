"""A single file gives what all steps are made from as the folder that diffusers converts it to."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from tests.single_files import config_of, single_file, small_checkpoint, write

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parent.parent.parent
RECIPE = """
family = "sd"
source = "none"
size = "64x64"
components = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
"""
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
             "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}


def converted(file, folder, target, predicts="epsilon", dtype=torch.float32, pad="<|endoftext|>"):
    """Returns the pipeline that diffusers loads from the file, saved. Its tokenizer pads with
    `pad`, as published by Stability."""
    parts = {
        part: network.from_single_file(str(file), config=str(folder), subfolder=part,
                                       local_files_only=True, torch_dtype=dtype)
        for part, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
    }
    pipeline = StableDiffusionPipeline(
        **parts, text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
        tokenizer=CLIPTokenizer.from_pretrained(
            ROOT / "recipes" / "tiny-emoji" / "tokenizer", pad_token=pad),
        scheduler=PNDMScheduler(**SCHEDULER, prediction_type=predicts), safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False)
    pipeline.save_pretrained(target)
    return target


def with_averages(tensors):
    """The tensors, and averages of the U-Net's beside them, as files of training have them."""
    unet = [n for n in tensors if n.startswith("model.diffusion_model.")]
    return tensors | {
        "model_ema." + n.removeprefix("model.").replace(".", ""): torch.full_like(tensors[n], 3)
        for n in unet
    }


def downloads(folder, source, **words):
    """All that a bundle is made from: the digests of networks, each step's parameters, and the
    files of the tokenizer, without the comment that `merges.txt` begins with."""
    recipe = load({"model": str(folder / "small.toml"), "source": str(source), **words})
    builder = Builder(plan(recipe), Store(folder / "cache"))
    made = {name: builder.make_all(name) for name in builder.plan.steps if "download:" in name}
    resources = made.pop("download:resources")
    texts = {path: builder.store.file(resources, path).read_bytes()
             for path in ("vocab.json", "merges.txt")}
    texts["merges.txt"] = texts["merges.txt"].partition(b"\n")[2]
    return texts | {name: record.digest() for name, record in made.items()} | {
        f"{name} is": dict(step.params) for name, step in builder.plan.steps.items()}


@pytest.mark.parametrize(("kind", "layers", "predicts", "dtype", "has_averages"), [
    ("clip", 12, "epsilon", torch.float16, True),
    ("clip", 12, "epsilon", torch.float32, False),
    ("open_clip", 23, "epsilon", torch.float16, False),
    ("open_clip", 23, "epsilon", torch.float32, True),
    ("open_clip", 23, "v_prediction", torch.float16, True),
], ids=["1.5-fp16-ema", "1.5-fp32", "2-base-fp16", "2-base-fp32-ema", "2.1-768-fp16-ema"])
def test_what_a_file_gives_is_what_the_folder_diffusers_makes_of_it_gives(
    tmp_path, kind, layers, predicts, dtype, has_averages
):
    folder, states = small_checkpoint(tmp_path / "folder", kind, dtype, layers)
    tensors = single_file(
        (states["unet"], config_of(folder, "unet")), (states["vae"], config_of(folder, "vae")),
        (states["text_encoder"], kind))
    file = write(tmp_path / "file.safetensors", with_averages(tensors) if has_averages else tensors)
    (tmp_path / "small.toml").write_text(RECIPE)
    pad = "<|endoftext|>" if kind == "clip" else "!"
    theirs = converted(file, folder, tmp_path / "theirs", predicts, dtype, pad)

    made = downloads(tmp_path, file, prediction_type=predicts)

    assert made == downloads(tmp_path, theirs, prediction_type=predicts)
