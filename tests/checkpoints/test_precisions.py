"""Weights in eight bits, or of several precisions, are read as torch reads them, or refused."""


import pytest
import torch
from diffusers.loaders import single_file_utils as theirs

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import open_checkpoint
from tests.checkpoints.forms import assert_equal, loaded
from tests.checkpoints.test_single_file import download, joined
from tests.single_files import config_of, small_checkpoint, write

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("fp8", FP8, ids=str)
def test_fp8_is_read_as_torch_reads_it(first, wanted_unet, tmp_path, fp8):
    file = write(tmp_path / "a.safetensors", {n: t.to(fp8) for n, t in first[2].items()})

    download(file, tmp_path / "out", "unet")

    wanted = {n: t.to(fp8).to(torch.float16) for n, t in wanted_unet.items()}
    assert_equal(loaded(tmp_path / "out"), wanted)


@pytest.mark.parametrize("fp8", FP8, ids=str)
def test_every_number_of_fp8_is_torchs(tmp_path, fp8):
    codes = torch.arange(256, dtype=torch.uint8).view(fp8)
    name = "decoder.conv_in.weight"
    file = write(tmp_path / "a.safetensors", {name: codes.reshape(64, 4, 1, 1)})

    [tensor] = open_checkpoint([str(file)], {}).tensors("vae").values()
    found = torch.frombuffer(bytearray(b"".join(tensor.chunks())), dtype=torch.float16)

    assert torch.equal(found.nan_to_num(7e4, 6e4, -6e4),
                       codes.to(torch.float16).nan_to_num(7e4, 6e4, -6e4))


@pytest.mark.parametrize("scale", ["scale_weight", "weight_scale"])
def test_scaled_fp8_is_multiplied_by_its_scale(first, tmp_path, scale):
    layer = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q."
    stored = first[2][f"{layer}weight"].to(torch.float8_e4m3fn)
    file = write(tmp_path / "a.safetensors", first[2] | {
        f"{layer}weight": stored, f"{layer}{scale}": torch.tensor(0.37),
        f"{layer}scale_input": torch.tensor(2.0),
        "model.diffusion_model.scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn),
    })

    download(file, tmp_path / "out", "unet")

    made = loaded(tmp_path / "out")
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert torch.equal(made[name], stored.float() * torch.tensor(0.37))
    assert not [n for n in made if "scale" in n]


@pytest.mark.parametrize("scale", [torch.ones(64, 1), torch.tensor(float("nan")),
                                   torch.tensor(0.0)], ids=["rows", "NaN", "0"])
def test_a_scale_that_is_not_one_number_is_refused(first, tmp_path, scale):
    layer = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q."
    file = write(tmp_path / "a.safetensors", first[2] | {
        f"{layer}weight": first[2][f"{layer}weight"].to(torch.float8_e4m3fn),
        f"{layer}scale_weight": scale,
    })

    with pytest.raises(SourceError, match="expected one above 0") as error:
        download(file, tmp_path / "out", "unet")
    assert "fp16 or bf16" in error.value.hint


def test_openclip_in_fp8_is_divided_as_torch_divides_it(tmp_path):
    folder, states = small_checkpoint(tmp_path / "folder", "open_clip")
    tensors = {n: t.to(torch.float8_e4m3fn) for n, t in joined(folder, states, "open_clip").items()
               if n.startswith("cond_stage_model")}
    file = write(tmp_path / "a.safetensors", tensors)

    download(file, tmp_path / "out", "text_encoder", config=folder)

    made = loaded(tmp_path / "out")
    for name, tensor in states["text_encoder"].items():
        wanted = tensor.to(torch.float8_e4m3fn).to(torch.float16)
        assert torch.equal(made[f"text_model.{name.removeprefix('text_model.')}"], wanted), name


def test_mixed_precisions_keep_each_its_own(first, wanted_unet, tmp_path):
    kinds = (torch.float16, torch.float32, torch.bfloat16, torch.float64)
    mixed = {n: t.to(kinds[i % 4]) for i, (n, t) in enumerate(sorted(first[2].items()))}
    file = write(tmp_path / "a.safetensors", mixed)
    wanted = theirs.convert_ldm_unet_checkpoint(dict(mixed), config_of(first[0], "unet"))

    download(file, tmp_path / "out", "unet")

    made = loaded(tmp_path / "out")
    assert_equal(made, wanted)
    assert {t.dtype for t in made.values()} == set(kinds)


@pytest.mark.parametrize(("dtype", "name"), [
    (torch.int8, "I8"), (torch.uint8, "U8"),
])
def test_whole_numbers_in_place_of_weights_are_refused(first, tmp_path, dtype, name):
    weight = "model.diffusion_model.middle_block.1.proj_in.weight"
    file = write(tmp_path / "a.safetensors",
                 first[2] | {weight: torch.zeros(first[2][weight].shape, dtype=dtype)})

    with pytest.raises(SourceError, match=f"is {name}, expected floats") as error:
        download(file, tmp_path / "out", "unet")
    assert "fp16 or bf16" in error.value.hint
