"""Single files, autoencoders from elsewhere and LoRAs, from the command line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.single_files import config_of, single_file, write

ROOT = Path(__file__).parent.parent.parent

DOWNLOADS = {"download:resources", "download:text_encoder", "download:unet",
             "download:vae_decoder", "download:vae_encoder"}


@pytest.fixture(scope="module")
def tensors(checkpoint):
    states = {part: load_file(next((checkpoint / part).glob("*.safetensors")))
              for part in ("unet", "vae", "text_encoder")}
    return single_file(
        (states["unet"], config_of(checkpoint, "unet")),
        (states["vae"], config_of(checkpoint, "vae")), (states["text_encoder"], "clip"),
    )


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
    return write(tmp_path_factory.mktemp("file") / "tiny.safetensors", tensors)


def test_a_single_file_with_the_folders_configs_builds_nothing_anew(project, file, checkpoint):
    ran = project.ran("build", source=file, config=checkpoint)

    assert ran == DOWNLOADS | {"bundle"}
    assert project.ran("build", source=file, config=checkpoint) == set()


def test_another_autoencoder_is_downloaded_and_converted_and_nothing_else(
    project, tensors, checkpoint, tmp_path,
):
    """Its scaling factor goes into the manifest, and is in no graph."""
    folder = tmp_path / "vae"
    folder.mkdir()
    config = config_of(checkpoint, "vae") | {"scaling_factor": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(next((checkpoint / "vae").glob("*.safetensors")))
    state["decoder.conv_out.bias"] = state["decoder.conv_out.bias"] + 0.25
    save_file(state, folder / "diffusion_pytorch_model.safetensors")

    ran = project.ran("build", vae=folder)

    again = {f"{stage}:{half}" for stage in ("download", "convert")
             for half in ("vae_decoder", "vae_encoder")}
    assert ran == again | {"compile:vae_decoder", "bundle"}  # the encoder has the same weights
    assert json.loads((project.bundle / "manifest.json").read_text())["scale_factor"] == 0.5


def lora(path, scale=1.0):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.full((2, 96), scale),
               f"{layer}.lora_B.weight": torch.full((96, 2), 0.01)}, path)
    return path


def test_a_lora_runs_again_what_its_weights_change_and_nothing_else(project, tmp_path):
    file = lora(tmp_path / "a.safetensors")

    first = project.ran("convert:unet", "convert:text_encoder", lora=f"{file}:0.8")
    same = project.ran("convert:unet", lora=f"{file}:0.8")
    stronger = project.ran("convert:unet", lora=f"{file}:0.9")
    lora(file, 2.0)
    changed = project.ran("convert:unet", lora=f"{file}:0.9")

    assert first == {"merge:unet", "merge:text_encoder", "convert:unet"}
    assert same == set()
    assert stronger == changed == {"merge:unet", "convert:unet"}


@pytest.mark.parametrize(("words", "what"), [
    ({"lora": "none.safetensors:0.5"}, "none.safetensors: there is no such file"),
    ({"source": "model.ckpt"}, "there is no such folder"),
    ({"source": "none.safetensors"}, "none.safetensors: there is no such file"),
    ({"vae": "none.safetensors"}, "none.safetensors: there is no such file"),
    ({"vae": "/none"}, "a checkpoint is a folder in diffusers' layout, or a .safetensors file"),
    ({"source": "none.safetensors", "config": "/none"},
     "config=/none: there is no such folder"),
    ({"source": ROOT / "recipes/tiny-emoji/vae"},
     "it is a folder of one network; if that is an autoencoder: vae=FOLDER"),
    ({"source": "README.md"}, "expected a folder or a .safetensors file"),
])
def test_what_is_not_there_is_named(new_project, words, what):
    printed = new_project.doit("download", "merge", status=1, **words) if "lora" in words else (
        new_project.doit("download", status=1, **words))

    assert what in printed
