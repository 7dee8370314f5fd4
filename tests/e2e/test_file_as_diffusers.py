"""A single file gives the bundle of the folder that diffusers converts it to, byte for byte."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from tests.inprocess import Steps
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


def contents(folder, source):
    """The files of the bundle of a source, by their paths, without its manifest, which tells where
    they are from, and without the comment that `merges.txt` begins with."""
    place = Steps(load({"model": str(folder / "small.toml"), "source": str(source)}),
                  folder)["bundle"]
    found = {p.relative_to(place).as_posix(): p.read_bytes()
             for p in place.rglob("*") if p.is_file()}
    del found["manifest.json"]
    return found | {"merges.txt": found["merges.txt"].partition(b"\n")[2]}


def test_the_bundle_of_a_file_is_that_of_the_folder_diffusers_makes_of_it(tmp_path):
    folder, states = small_checkpoint(tmp_path / "folder", "clip")
    file = write(tmp_path / "file.safetensors", single_file(
        (states["unet"], config_of(folder, "unet")), (states["vae"], config_of(folder, "vae")),
        (states["text_encoder"], "clip")))
    (tmp_path / "small.toml").write_text(RECIPE)

    made = contents(tmp_path, file)
    wanted = contents(tmp_path, converted(file, folder, tmp_path / "theirs"))

    assert [n for n in made.keys() | wanted.keys() if made.get(n) != wanted.get(n)] == []


def with_averages(tensors):
    """The tensors, and averages of the U-Net's beside them, as files of training have them."""
    unet = [n for n in tensors if n.startswith("model.diffusion_model.")]
    return tensors | {
        "model_ema." + n.removeprefix("model.").replace(".", ""): torch.full_like(tensors[n], 3)
        for n in unet
    }


def downloads(folder, source, **words):
    """The digest of each component's tensors and architecture, from which all else is made."""
    recipe = load({"model": str(folder / "small.toml"), "source": str(source), **words})
    builder = Builder(plan(recipe), Store(folder / "cache"))
    names = [f"download:{component.name}" for component in recipe.components]
    return {name: builder.make_all(name).digest() for name in names}


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
