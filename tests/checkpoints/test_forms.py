"""Forms of checkpoints as people bring them; the rows of docs/checkpoints.md name these tests."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize, open_checkpoint, resolve_place
from tests.checkpoints.test_single_file import download, joined
from tests.single_files import config_of, single_file, small_checkpoint, write

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "checkpoints.md"
VAE_HALF = ("decoder.", "post_quant_conv.")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A small 1.x: its folder, the states of its networks and the tensors of its single file."""
    folder, states = small_checkpoint(tmp_path_factory.mktemp("first") / "folder", "clip")
    return folder, states, joined(folder, states, "clip")


@pytest.fixture(scope="module")
def unet(first, tmp_path_factory):
    """What is downloaded of the folder's U-Net."""
    return download(first[0], tmp_path_factory.mktemp("unet") / "out", "unet")


@pytest.fixture(scope="module")
def wanted_unet(first):
    """The U-Net of the file, as diffusers' own conversion reads it."""
    folder, _, tensors = first
    return theirs.convert_ldm_unet_checkpoint(dict(tensors), config_of(folder, "unet"))


def loaded(folder):
    return load_file(folder / "weights.safetensors")


def assert_equal(made, wanted):
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in made)


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


def in_cache(folder, file, name):
    """The file as the Hugging Face cache keeps it."""
    blob = folder / "models--a--b" / "blobs" / "0123456789abcdef"
    link = folder / "models--a--b" / "snapshots" / ("c" * 40) / name
    blob.parent.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    blob.write_bytes(file.read_bytes())
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


@pytest.mark.parametrize("base", ["absolute", "relative"])
def test_a_file_in_the_hub_cache_keeps_its_suffix(first, unet, tmp_path, base):
    file = write(tmp_path / "a.safetensors", first[2])
    link = in_cache(tmp_path / "cache", file, "x.safetensors")

    place = resolve_place(str(link) if base == "absolute" else link.name,
                  link.parent if base == "relative" else tmp_path)

    assert place == str(link)
    assert download(place, tmp_path / "out", "unet") == unet


def test_a_snapshot_in_the_hub_cache_is_read_as_a_folder(first, unet, tmp_path):
    root = tmp_path / "models--a--b"
    snapshot = root / "snapshots" / ("c" * 40)
    (root / "blobs").mkdir(parents=True)
    for i, path in enumerate(sorted((first[0] / "unet").iterdir())):
        blob = root / "blobs" / str(i)
        blob.write_bytes(path.read_bytes())
        link = snapshot / "unet" / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))

    assert download(snapshot, tmp_path / "out", "unet") == unet


def linked(first, tmp_path, target):
    folder = tmp_path / "mine"
    (folder / "unet").mkdir(parents=True)
    for path in (first[0] / "unet").iterdir():
        (folder / "unet" / path.name).write_bytes(path.read_bytes())
    config = folder / "unet" / "config.json"
    config.unlink()
    config.symlink_to(target)
    return folder, config


def test_a_link_out_of_a_folder_is_refused(first, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    folder, link = linked(first, tmp_path, secret)

    for ask in (lambda c: c.identity("unet", digest_file), lambda c: c.config("unet")):
        with pytest.raises(SourceError, match="which is outside of") as error:
            ask(open_checkpoint([str(folder)], {}))
        assert f"{link} is a link to {secret}" in error.value.message


def test_a_link_inside_a_folder_is_followed(first, unet, tmp_path):
    folder, _ = linked(first, tmp_path, Path("..") / "shared.json")
    (folder / "shared.json").write_bytes((first[0] / "unet" / "config.json").read_bytes())

    assert download(folder, tmp_path / "out", "unet") == unet


def test_a_folder_that_is_itself_a_link_is_read(first, unet, tmp_path):
    (tmp_path / "latest").symlink_to(first[0])

    assert download(resolve_place("latest", tmp_path), tmp_path / "out", "unet") == unet


@pytest.mark.parametrize("target", ["nowhere", "config.json"], ids=["nothing", "itself"])
def test_a_link_to_nothing_is_named(first, tmp_path, target):
    folder, link = linked(first, tmp_path, target)

    with pytest.raises(SourceError, match="where there is no file") as error:
        open_checkpoint([str(folder)], {}).config("unet")
    assert str(link) in error.value.message


UNET = {"_class_name": "UNet2DConditionModel"}
TEXT = {"architectures": ["CLIPTextModel"]}
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [32, 32, 32, 64],
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


@pytest.mark.parametrize(("part", "config", "what"), [
    ("unet", UNET | {"addition_embed_type": "text_time"}, "it is of Stable Diffusion XL"),
    ("unet", UNET | {"class_embed_type": "projection"}, "unCLIP"),
    ("unet", UNET | {"num_class_embeds": 1000}, "as upscalers do"),
    ("unet", UNET | {"in_channels": 8}, "it is InstructPix2Pix"),
    ("unet", UNET | {"in_channels": 5}, "it is for depth to image"),
    ("unet", UNET | {"dual_cross_attention": True}, "Versatile Diffusion"),
    ("unet", UNET | {"encoder_hid_dim_type": "image_proj"}, "IP-Adapter and Kandinsky"),
    ("unet", UNET | {"attention_type": "gated"}, "GLIGEN"),
    ("unet", UNET | {"resnet_time_scale_shift": "scale_shift"}, "DeepFloyd"),
    ("unet", {"_class_name": "UNetMotionModel"}, "AnimateDiff"),
    ("unet", {"_class_name": "Nobody'sModel"}, "expected UNet2DConditionModel"),
    ("text_encoder", {"architectures": ["CLIPTextModelWithProjection"]}, "second text encoder"),
    ("vae", {"_class_name": "AutoencoderTiny"}, "TAESD"),
    ("vae", VAE | {"latent_channels": 16}, "belongs to Stable Diffusion 3 or FLUX"),
    ("vae", VAE | {"shift_factor": 0.1159}, "as those of FLUX are"),
])
def test_a_network_that_is_not_built_is_refused_by_name(part, config, what):
    with pytest.raises(SourceError, match=re.escape(what)) as error:
        normalize.architecture(part, config)
    assert f"{part}/config.json" in error.value.message
    assert "lower=direct" not in error.value.hint


@pytest.mark.parametrize(("part", "config"), [
    ("text_encoder", TEXT | {"num_hidden_layers": 10_000_000}),
    ("text_encoder", TEXT | {"num_hidden_layers": -1}),
    ("text_encoder", TEXT | {"hidden_size": "768"}),
    ("text_encoder", TEXT | {"layer_norm_eps": float("nan")}),
    ("text_encoder", TEXT | {"vocab_size": True}),
    ("text_encoder", TEXT | {"num_attention_heads": 10**400}),
    ("unet", UNET | {"block_out_channels": [320] * 1000}),
    ("unet", UNET | {"block_out_channels": {"a": 1}}),
    ("unet", UNET | {"layers_per_block": [2, "2", 2, 2]}),
    ("unet", UNET | {"norm_eps": 10**400}),
    ("unet", UNET | {"attention_head_dim": 0}),
    ("unet", UNET | {"act_fn": ["silu"]}),
    ("vae", VAE | {"block_out_channels": [32, 64]}),
    ("safety_checker", {"architectures": ["StableDiffusionSafetyChecker"],
                        "vision_config": {"num_hidden_layers": 1e7}}),
])
def test_an_absurd_config_is_refused(part, config):
    with pytest.raises(SourceError, match=r"config\.json: the network cannot be built"):
        normalize.architecture(part, config)


@pytest.mark.parametrize(("name", "what"), [
    ("model.diffusion_model.time_embed.cond_proj.weight", "time_cond_proj_dim is 2, expected"),
    ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k_ip.weight",
     "IP-Adapter"),
    ("model.diffusion_model.middle_block.1.weight.quant_map", "quantized by bitsandbytes"),
])
def test_a_file_with_layers_of_another_network_is_refused(first, tmp_path, name, what):
    file = write(tmp_path / "a.safetensors", first[2] | {name: torch.zeros(2, 2)})

    with pytest.raises(SourceError, match=what):
        download(file, tmp_path / "out", "unet")


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
