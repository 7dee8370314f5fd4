"""Forms of checkpoints as people bring them; the rows of docs/checkpoints.md name these tests."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize, open_checkpoint
from tests.checkpoints.forms import assert_equal, loaded
from tests.checkpoints.test_single_file import download, joined
from tests.single_files import config_of, single_file, small_checkpoint, write

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "checkpoints.md"
VAE_HALF = ("decoder.", "post_quant_conv.")


def behind(tensors, change):
    return {change(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(("change", "note"), [
    (lambda n: f"_orig_mod.{n}", "names without _orig_mod."),
    (lambda n: n.replace("diffusion_model.", "diffusion_model._orig_mod."),
     "names without _orig_mod."),
    (lambda n: f"module.{n}", "names without module."),
    (lambda n: f"model.{n}", "names without model."),
    (lambda n: f"module._orig_mod.model.{n}", "names without module."),
    (lambda n: f"state_dict.{n}", "names without state_dict."),
], ids=["compiled", "compiled inside", "parallel", "model", "all three", "state_dict"])
def test_wrapped_names_are_read_and_recorded(first, unet, tmp_path, change, note):
    file = write(tmp_path / "a.safetensors", behind(first[2], change))

    assert download(file, tmp_path / "out", "unet") == unet
    checkpoint = open_checkpoint([str(file)], {})
    checkpoint.tensors("unet")
    assert note in checkpoint.origin["read"]


def test_two_states_of_one_model_are_refused(first, tmp_path):
    name = "model.diffusion_model.input_blocks.0.0.weight"
    file = write(tmp_path / "a.safetensors", first[2] | {f"module.{name}": torch.zeros(1)})

    with pytest.raises(SourceError, match="are two tensors for") as error:
        download(file, tmp_path / "out", "unet")
    assert f"module.{name}" in error.value.message


def test_a_file_without_averaged_weights_is_read(first, unet, tmp_path):
    tensors = {n: t for n, t in first[2].items() if not n.startswith("model_ema.")}

    assert download(write(tmp_path / "a.safetensors", tensors), tmp_path / "out", "unet") == unet


def flat(tensors):
    """As LitEma of CompVis/stable-diffusion keeps averages: without dots."""
    prefix = "model.diffusion_model."
    return {"model_ema.diffusion_model" + n.removeprefix(prefix).replace(".", ""): t
            for n, t in tensors.items() if n.startswith(prefix)}


def test_of_both_kinds_of_weights_the_plain_ones_are_taken(first, wanted_unet, tmp_path):
    averages = {n: t + 1 for n, t in flat(first[2]).items()}
    file = write(tmp_path / "a.safetensors", first[2] | averages)

    download(file, tmp_path / "out", "unet")

    assert_equal(loaded(tmp_path / "out"), wanted_unet)


def test_averaged_weights_alone_are_read_and_recorded(first, tmp_path):
    """diffusers maps each plain name to its flat one, so it is given both here."""
    folder, _, tensors = first
    averages = {n: t + 1 for n, t in flat(tensors).items()}
    rest = {n: t for n, t in tensors.items() if not n.startswith("model")}
    file = write(tmp_path / "a.safetensors", rest | averages)
    wanted = theirs.convert_ldm_unet_checkpoint(
        dict(tensors) | averages, config_of(folder, "unet"), extract_ema=True)

    download(file, tmp_path / "out", "unet")

    assert_equal(loaded(tmp_path / "out"), wanted)
    checkpoint = open_checkpoint([str(file)], {})
    checkpoint.tensors("unet")
    assert checkpoint.origin == {"read": ["unet: averaged weights"]}


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model."])
def test_a_unet_alone_is_read(first, unet, tmp_path, prefix):
    old = "model.diffusion_model."
    tensors = {prefix + n.removeprefix(old): t for n, t in first[2].items() if n.startswith(old)}

    file = write(tmp_path / "a.safetensors", tensors)

    assert download(file, tmp_path / "out", "unet") == unet


def test_a_unet_alone_by_diffusers_names_is_read_with_a_config(first, unet, tmp_path):
    file = first[0] / "unet" / "diffusion_pytorch_model.safetensors"

    assert download(file, tmp_path / "out", "unet", config=first[0]) == unet


def test_a_unet_alone_has_no_text_encoder_and_says_so(first, tmp_path):
    tensors = {n: t for n, t in first[2].items() if n.startswith("model.")}
    file = write(tmp_path / "a.safetensors", tensors)

    with pytest.raises(SourceError, match=r"it has no text_encoder: .*; it has a U-Net") as error:
        download(file, tmp_path / "out", "text_encoder")
    assert "components=unet,vae_decoder" in error.value.hint


def test_a_text_encoder_alone_has_no_unet_and_says_so(first, tmp_path):
    file = first[0] / "text_encoder" / "model.safetensors"

    with pytest.raises(SourceError, match=r"it has no unet: .*; it has a text encoder") as error:
        download(file, tmp_path / "out", "unet")
    assert error.value.hint


def test_an_autoencoder_alone_has_no_unet_and_says_what_it_is_for(first, tmp_path):
    file = first[0] / "vae" / "diffusion_pytorch_model.safetensors"

    with pytest.raises(SourceError, match=r"it has no unet: .*; it has an autoencoder") as error:
        download(file, tmp_path / "out", "unet")
    assert "vae=FILE" in error.value.hint


def test_a_unet_without_its_upper_half_is_refused(first, tmp_path):
    tensors = {n: t for n, t in first[2].items() if "output_blocks" not in n}

    with pytest.raises(SourceError, match="up_blocks"):
        download(write(tmp_path / "a.safetensors", tensors), tmp_path / "out", "unet")


def test_networks_of_two_models_in_one_file_are_refused(first, tmp_path):
    other = first[2] | {
        n: torch.zeros(t.shape[0], 1024) for n, t in first[2].items() if "attn2.to_k" in n
    }

    with pytest.raises(SourceError, match="gives prompts 768 wide, and its U-Net takes 1024"):
        download(write(tmp_path / "a.safetensors", other), tmp_path / "out", "resources")


def sparse(path, shapes):
    """A file of fp16 tensors of such shapes that takes no room: all its bytes are a hole."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def second_shapes(layers, names):
    """The shapes of a text encoder of 2.x in a single file, and what they are without prefix."""
    with torch.device("meta"):
        state = CLIPTextModel(CLIPTextConfig(
            vocab_size=300, hidden_size=1024, intermediate_size=96, num_hidden_layers=layers,
            num_attention_heads=16)).state_dict()
    if names == "openclip":
        found = single_file(({}, NO_UNET), ({}, NO_VAE), (state, "open_clip"))
        last = f"resblocks.{layers}."  # the block that the writer adds
        found = {n: t for n, t in found.items() if "cond_stage" in n and last not in n}
    else:
        found = {f"cond_stage_model.transformer.text_model.{n.removeprefix('text_model.')}": t
                 for n, t in state.items()}
    return {n: tuple(t.shape) for n, t in found.items()}, found


NO_UNET = {"down_block_types": [], "layers_per_block": 0}
NO_VAE = {"block_out_channels": [], "layers_per_block": 0}


@pytest.mark.parametrize("names", ["openclip", "transformers"])
@pytest.mark.parametrize("layers", [23, 24])
def test_a_second_generation_text_encoder_has_23_layers(tmp_path, layers, names):
    """diffusers leaves out the block of number 23, whether or not it is there."""
    shapes, tensors = second_shapes(layers, names)
    checkpoint = open_checkpoint([str(sparse(tmp_path / "a.safetensors", shapes))], {})
    if names == "openclip":
        model = CLIPTextModel(CLIPTextConfig(hidden_size=1024, num_attention_heads=16,
                                             num_hidden_layers=1, intermediate_size=96))
        wanted = theirs.convert_open_clip_checkpoint(model, tensors)
    else:
        wanted = theirs.convert_ldm_clip_checkpoint(tensors)
        wanted = {n: t for n, t in wanted.items() if "layers.23." not in n}

    found = {t.name: t.shape for t in
             normalize.tensors("text_encoder", checkpoint.tensors("text_encoder").values())}
    config = normalize.architecture("text_encoder", checkpoint.config("text_encoder"))["config"]

    def plain(names):
        return {n.removeprefix("text_model."): tuple(getattr(t, "shape", t))
                for n, t in names.items() if "projection" not in n and "position_ids" not in n}
    assert plain(found) == plain(wanted)
    assert (config["num_hidden_layers"], config["hidden_act"]) == (23, "gelu")


def test_a_second_generation_text_encoder_of_another_depth_is_refused(tmp_path):
    shapes, _ = second_shapes(22, "openclip")
    file = sparse(tmp_path / "a.safetensors", shapes)

    with pytest.raises(SourceError, match="has 22 layers, expected 24, or 23") as error:
        open_checkpoint([str(file)], {}).tensors("text_encoder")
    assert "config=FOLDER" in error.value.hint


def test_transformers_names_with_wide_prompts_are_a_second_generation(tmp_path):
    """It pads with `!` and asks what its U-Net predicts."""
    folder, states = small_checkpoint(tmp_path / "folder", "open_clip")
    file = write(tmp_path / "a.safetensors", joined(folder, states, "clip"))

    with pytest.raises(SourceError, match="does not say what its U-Net predicts"):
        download(file, tmp_path / "out", "resources")
    made = download(file, tmp_path / "out2", "resources", prediction_type="epsilon")
    assert json.loads(made["special_tokens_map.json"]) == {"pad_token": "!"}


@pytest.mark.parametrize("kind", ["clip", "open_clip"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("averages", [True, False], ids=["with averages", "without"])
def test_a_file_gives_what_diffusers_own_conversion_of_it_gives(tmp_path, kind, dtype, averages):
    """diffusers converts the file and saves a folder; both are downloaded and compared."""
    folder, states = small_checkpoint(tmp_path / "folder", kind, dtype)
    tensors = joined(folder, states, kind)
    if averages:
        tensors |= {n: t + 1 for n, t in flat(tensors).items()}
    else:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("model_ema")}
    file = write(tmp_path / "a.safetensors", tensors)
    for part, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        made = network.from_single_file(
            str(file), config=str(folder), subfolder=part, local_files_only=True, torch_dtype=dtype)
        made.save_pretrained(tmp_path / "theirs" / part)
        prefixes = VAE_HALF if part == "vae" else ("",)

        wanted = download(tmp_path / "theirs", tmp_path / "1" / part, part, prefixes)

        assert download(file, tmp_path / "2" / part, part, prefixes) == wanted


def rows():
    return [line for line in PAGE.read_text("utf-8").split("\n")
            if line.startswith("|") and "`test_" in line]


def test_each_form_on_the_page_has_its_test():
    known = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    named = {name for row in rows() for name in re.findall(r"`(test_\w+)`", row)}

    assert [n for n in sorted(named) if f"def {n}(" not in known] == []
    assert len(rows()) >= 28
    assert [row for row in rows() if row.count("|") != 6] == []
