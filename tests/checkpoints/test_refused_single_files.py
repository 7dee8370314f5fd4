"""Single files that cannot be read are refused with what they are, and what helps."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import open_checkpoint
from tests.single_files import download, joined, small_checkpoint, write

TINY_EMOJI = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"


@pytest.mark.parametrize(("names", "what"), [
    (["edm_mean"], "another schedule of noise"), (["lora_controlnet"], "is a Control-LoRA"),
    (["difference", "input_blocks.0.0.weight"], "is the difference of a ControlNet"),
    (["lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.down.0.weight"], "LLLite"),
    (["control_add_embedding.linear_1.weight"], "for several kinds of pictures"),
    (["adapter.body.0.in_conv.weight"], "is a T2I adapter"),
    (["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"],
     "is of Stable Diffusion 3"),
    (["double_blocks.0.img_attn.qkv.weight"], "is of FLUX"),
    (["control_model.zero_convs.0.0.weight"], "is a ControlNet"),
    (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "is a LoRA"),
    (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "is a LoRA"),
    (["vae.decoder.conv_in.weight"], "has the names of an entire pipeline in diffusers"),
    (["emb_params"], "is an embedding"),
    (["something.else"], "it has no unet: no tensor begins with model.diffusion_model."),
])
def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path, names, what):
    file = write(tmp_path / "a.safetensors", {n: torch.zeros(2, 2) for n in names})

    with pytest.raises(SourceError, match=r"a\.safetensors") as error:
        download(file, tmp_path / "out", "unet")

    assert what in error.value.message


def test_of_a_lora_as_autoencoder_it_is_said_that_one_is_expected(tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"
    file = write(tmp_path / "a.safetensors", {name: torch.zeros(2, 2)})

    with pytest.raises(SourceError, match="is a LoRA, expected an autoencoder, or a checkpoint"):
        download(file, tmp_path / "out", "vae")


@pytest.mark.parametrize(("channels", "what"), [
    (8, "InstructPix2Pix"), (7, "an upscaler"), (6, "of another model"),
])
def test_a_unet_that_takes_other_channels_is_refused(tmp_path, channels, what):
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(64, channels, 3, 3)}
    file = write(tmp_path / "a.safetensors", tensors)

    with pytest.raises(SourceError, match=f"takes {channels} channels, so it is {what}"):
        download(file, tmp_path / "out", "unet")


def test_a_unet_whose_heads_cannot_be_told_is_refused(tmp_path):
    folder, states = small_checkpoint(tmp_path / "folder", "clip")
    tensors = {
        n: t[:, :64] if "attn2.to_k" in n else t for n, t in joined(folder, states, "clip").items()
    }
    file = write(tmp_path / "a.safetensors", tensors)

    with pytest.raises(SourceError, match="prompts 64 wide, expected 768") as error:
        download(file, tmp_path / "out", "unet")
    assert "config=FOLDER" in error.value.hint


def test_an_autoencoder_whose_groups_cannot_be_told_is_refused(tmp_path):
    state = load_file(next((TINY_EMOJI / "vae").glob("*.safetensors")))
    file = write(tmp_path / "a.safetensors", state)

    with pytest.raises(SourceError, match="the number of groups of its normalizations") as error:
        download(file, tmp_path / "out", "vae", ("decoder.",))
    assert "config=FOLDER" in error.value.hint
    made = download(file, tmp_path / "out2", "vae", ("decoder.",), TINY_EMOJI)
    assert made == download(TINY_EMOJI, tmp_path / "out3", "vae", ("decoder.",))


def test_a_file_without_an_autoencoder_says_where_to_take_one(tmp_path):
    file = write(tmp_path / "a.safetensors", {"model.diffusion_model.x": torch.zeros(2)})

    with pytest.raises(SourceError, match="it has no vae") as error:
        download(file, tmp_path / "out", "vae", ("decoder.",))
    assert error.value.hint == "vae=LOCATION uses another autoencoder"


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, suffix):
    (tmp_path / f"model{suffix}").write_bytes(b"\x80\x02")

    with pytest.raises(SourceError, match="is a pickle, which can run code") as error:
        open_checkpoint([str(tmp_path / f"model{suffix}")], {})
    assert "weights_only=True" in error.value.hint


@pytest.mark.parametrize(("content", "what", "hint"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer",
     "git lfs pull"),
    (b"\n<!DOCTYPE html><html>", "a web page", "logged in"),
    (b'{"error": "login"}' * 9, "JSON", "logged in"),
    (b"PK\x03\x04" + b"\0" * 90, "a pickle of PyTorch's", "weights_only=True"),
    (b"\x80\x02ctorch" + b"\0" * 90, "a pickle", "weights_only=True"),
])
def test_what_lies_in_place_of_a_file_is_named(tmp_path, content, what, hint):
    (tmp_path / "a.safetensors").write_bytes(content)

    with pytest.raises(SourceError, match=f"not a complete safetensors file: {what}") as error:
        download(tmp_path / "a.safetensors", tmp_path / "out", "unet")
    assert hint in error.value.hint


def test_a_file_that_was_cut_is_refused(tmp_path):
    file = write(tmp_path / "a.safetensors", {"model.diffusion_model.x": torch.zeros(99)})
    file.write_bytes(file.read_bytes()[:-5])

    with pytest.raises(SourceError, match="not a complete safetensors file"):
        download(file, tmp_path / "out", "unet")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.safetensors: there is no such file"):
        open_checkpoint([str(tmp_path / "none.safetensors")], {})
