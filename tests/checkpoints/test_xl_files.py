"""Files of Stable Diffusion XL and of ControlNets give what diffusers reads from them."""

import json

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize, open_checkpoint
from sdbuild.recipe.recipe import load
from tests.checkpoints.test_single_file import download, joined
from tests.single_files import CONFIGS, config_of, hollow, small_checkpoint, write
from tests.xl_files import small_controlnet, small_xl, xl_file

PUBLISHED = CONFIGS / "stable-diffusion-xl-base-1.0"
FAMILIES = {"base": "sdxl", "refiner": "sdxl-refiner", "inpainting": "sdxl", "lcm": "sdxl"}
HALVES = {"unet": [("",)], "text_encoder": [("",)], "text_encoder_2": [("",)],
          "vae": [("decoder.", "post_quant_conv."), ("encoder.", "quant_conv.")]}


@pytest.fixture(scope="module", params=FAMILIES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def made(kind, tmp_path_factory):
    """A folder, its states, and a file with the same."""
    path = tmp_path_factory.mktemp(kind)
    folder, states = small_xl(path / "folder", kind)
    return folder, states, write(path / "a.safetensors", xl_file(folder, states))


def read(place, part):
    """The architecture, without the family's refusals, and the tensors of a part."""
    checkpoint = open_checkpoint([str(place)], {})
    config = checkpoint.config(part)
    found = normalize.tensors(part, checkpoint.tensors(part).values())
    return config, {tensor.name: b"".join(tensor.chunks()) for tensor in found}


def test_a_file_has_the_networks_of_its_folder(made):
    folder, states, file = made

    for part in states:
        (_, wanted), (_, found) = read(folder, part), read(file, part)
        assert found == wanted, part


def test_the_configs_of_a_file_make_the_networks_of_its_folder(made):
    """diffusers and transformers make the same network of either config."""
    folder, states, file = made
    classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
               "text_encoder_2": CLIPTextModelWithProjection}
    for part in states:
        (wanted, _), (found, _) = read(folder, part), read(file, part)
        kind = classes[part]
        if part.startswith("text"):
            made_of, wanted = (kind.config_class(**c).to_dict() for c in (found, wanted))
        else:
            with torch.device("meta"):
                made_of, wanted = (dict(kind.from_config(c).config) for c in (found, wanted))
        said = wanted.keys() - {"dtype", "projection_dim" if part == "text_encoder" else ""}
        assert {n: made_of[n] for n in said if n[0] != "_"} == {
            n: wanted[n] for n in said if n[0] != "_"}, part


@pytest.mark.parametrize("kind", ["base", "refiner"], indirect=True)
def test_a_file_gives_the_artifacts_of_its_folder(kind, made, tmp_path):
    folder, states, file = made
    family = FAMILIES[kind]
    for part, prefixes in ((p, half) for p in states for half in HALVES[p]):
        name = f"{part}-{prefixes[0]}"
        wanted, found = (
            download(place, tmp_path / str(i) / name, part, prefixes, family=family)
            for i, place in enumerate((folder, file)))
        assert found == wanted, part


@pytest.mark.parametrize("kind", ["base", "refiner"], indirect=True)
def test_a_file_is_read_as_diffusers_reads_it(kind, made, tmp_path):
    folder, states, file = made
    tensors = load_file(file)
    encoders = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for part in states:
        if part in encoders:
            model = theirs.create_diffusers_clip_model_from_ldm(
                encoders[part], tensors, subfolder=part, config=str(folder),
                torch_dtype=torch.float16, local_files_only=True)
            wanted = model.state_dict()
        else:
            network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
            wanted = network.from_single_file(
                str(file), config=str(folder), subfolder=part, local_files_only=True,
                torch_dtype=torch.float16).state_dict()
        found = {}
        for prefixes in HALVES[part]:
            out = tmp_path / f"{part}-{prefixes[0]}"
            download(file, out, part, prefixes, family=FAMILIES[kind])
            found |= load_file(out / "weights.safetensors")
        drop = "text_model." if part == "text_encoder" else ""
        found = {name.removeprefix(drop): tensor for name, tensor in found.items()}
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), part


@pytest.mark.parametrize("kind", ["base"], indirect=True)
def test_diffusers_pipeline_takes_the_file_that_is_read_here(made):
    """So the file is one, and no invention of these tests."""
    folder, states, file = made
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }))

    pipe = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True, torch_dtype=torch.float16)

    for part, state in states.items():
        loaded = getattr(pipe, part).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items()), part


@pytest.mark.parametrize("kind", ["base", "refiner"], indirect=True)
def test_a_file_brings_the_tokenizers_of_its_text_encoders(kind, made):
    folder, _, file = made
    given, wanted = (open_checkpoint([str(place)], {}).resources() for place in (file, folder))

    assert {n for n in given if n.endswith(("vocab.json", "merges.txt"))} == {
        n for n in wanted if n.endswith(("vocab.json", "merges.txt"))}
    for name in (n for n in given if n.endswith("special_tokens_map.json")):
        assert json.loads(given[name]) == json.loads(wanted[name])
    scheduler = json.loads(given["scheduler/scheduler_config.json"])
    assert scheduler["_class_name"] == "EulerDiscreteScheduler"
    assert (scheduler["beta_start"], scheduler["timestep_spacing"]) == (0.00085, "leading")
    assert scheduler["prediction_type"] == "epsilon"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    folder, states = small_xl(path / "folder", "base")
    return folder, xl_file(folder, states)


@pytest.fixture(scope="module")
def published():
    """The states of the published model's networks, without numbers."""
    configs = {part: config_of(PUBLISHED, part)
               for part in ("unet", "vae", "text_encoder", "text_encoder_2")}
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(configs["unet"]).state_dict(),
            "vae": AutoencoderKL.from_config(configs["vae"]).state_dict(),
            "text_encoder": CLIPTextModel(
                CLIPTextModel.config_class(**configs["text_encoder"])).state_dict(),
            "text_encoder_2": CLIPTextModelWithProjection(
                CLIPTextModel.config_class(**configs["text_encoder_2"])).state_dict(),
        }


def test_the_real_sizes_have_the_names_and_configs_of_their_repository(published, tmp_path):
    with torch.device("meta"):
        file = hollow(tmp_path / "a.safetensors", xl_file(PUBLISHED, published))
    checkpoint = open_checkpoint([str(file)], {})

    for part, state in published.items():
        found = {t.name: t.shape for t in normalize.tensors(
            part, checkpoint.tensors(part).values())}
        drop = "text_model." if part == "text_encoder" else ""
        assert {n.removeprefix(drop): s for n, s in found.items()} == {
            n: tuple(t.shape) for n, t in state.items()}, part
        inferred, wanted = (normalize.architecture(part, config, "sdxl") for config in (
            checkpoint.config(part), config_of(PUBLISHED, part)))
        assert inferred == wanted, part
    assert load({"source": str(file)}).family.name == "sdxl"


def test_a_u_net_alone_is_of_the_family_that_its_widths_show(published, tmp_path):
    """Few-step U-Nets of XL come without text encoders, as its refiner without the first."""
    file = hollow(tmp_path / "lightning_unet.safetensors", published["unet"])

    assert load({"source": str(file)}).family.name == "sdxl"


def test_a_file_trained_to_the_last_step_on_velocities_says_so(base, tmp_path):
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    file = write(tmp_path / "a.safetensors", base[1] | marks)

    made = download(file, tmp_path / "out", "resources")

    scheduler = json.loads(made["scheduler_config.json"])
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"] is True
    assert scheduler["timestep_spacing"] == "trailing"


@pytest.mark.parametrize("change", [
    lambda n: f"_orig_mod.{n}", lambda n: f"module.{n}", lambda n: f"state_dict.{n}",
], ids=["compiled", "parallel", "state_dict"])
@pytest.mark.parametrize("part", ["unet", "text_encoder", "text_encoder_2", "vae"])
def test_wrapped_names_of_xl_are_read(base, tmp_path, change, part):
    folder, tensors = base
    file = write(tmp_path / "a.safetensors", {change(n): t for n, t in tensors.items()})

    assert read(file, part)[1] == read(folder, part)[1]


@pytest.mark.parametrize("fp8", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_fp8_is_read_as_torch_reads_it(base, tmp_path, fp8):
    file = write(tmp_path / "a.safetensors", {n: t.to(fp8) for n, t in base[1].items()})
    name = "conditioner.embedders.1.model.text_projection"

    download(file, tmp_path / "out", "text_encoder_2")

    found = load_file(tmp_path / "out" / "weights.safetensors")
    projection = base[1][name].to(fp8).half().T
    assert torch.equal(found["text_projection.weight"], projection)
    inner = base[1]["conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(found["text_model.encoder.layers.1.self_attn.k_proj.weight"],
                       inner.to(fp8).half()[1280:2560])


def test_averaged_weights_of_xl_are_read_as_diffusers_reads_them(base, tmp_path):
    folder, tensors = base
    prefix = "model.diffusion_model."
    averages = {"model_ema.diffusion_model" + n.removeprefix(prefix).replace(".", ""): t + 1
                for n, t in tensors.items() if n.startswith(prefix)}
    rest = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
    file = write(tmp_path / "a.safetensors", rest | averages)
    config = json.loads((folder / "unet" / "config.json").read_text())
    wanted = theirs.convert_ldm_unet_checkpoint(
        dict(tensors) | averages, config, extract_ema=True)

    download(file, tmp_path / "out", "unet", family="sdxl")

    found = load_file(tmp_path / "out" / "weights.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family, scale", [("sdxl", 0.13025), ("sd", 0.18215)])
def test_the_latents_of_an_autoencoder_alone_are_scaled_as_its_familys(
    base, tmp_path, family, scale,
):
    prefix = "first_stage_model."
    file = write(tmp_path / "vae.safetensors", {
        n.removeprefix(prefix): t for n, t in base[1].items() if n.startswith(prefix)})

    made = download(file, tmp_path / "out", "vae", ("decoder.",), family=family)

    assert json.loads(made["latents.json"]) == {"scaling_factor": scale}


def test_the_latents_of_an_autoencoder_in_a_whole_file_are_scaled_as_that_files_model(
    base, tmp_path,
):
    """vae=FILE may name any checkpoint."""
    folder, states = small_checkpoint(tmp_path / "first", "clip")
    first = write(tmp_path / "1.safetensors", joined(folder, states, "clip"))
    xl = write(tmp_path / "xl.safetensors", base[1])
    scales = []
    for name, file, family in (("1", first, "sdxl"), ("xl", xl, "sd")):
        made = download(file, tmp_path / f"out-{name}", "vae", ("decoder.",), family=family)
        scales.append(json.loads(made["latents.json"])["scaling_factor"])

    assert scales == [0.18215, 0.13025]


def test_a_file_of_xl_for_a_recipe_of_another_family_is_refused(base, tmp_path):
    file = write(tmp_path / "a.safetensors", base[1])

    with pytest.raises(SourceError, match="it is of Stable Diffusion XL"):
        download(file, tmp_path / "out", "unet")


def test_a_file_of_xl_without_its_second_text_encoder_is_refused(base, tmp_path):
    file = write(tmp_path / "a.safetensors", {
        n: t for n, t in base[1].items() if not n.startswith("conditioner.embedders.1.")})

    with pytest.raises(SourceError, match="prompts 768 wide, and its U-Net takes 2048"):
        download(file, tmp_path / "out", "resources")
    with pytest.raises(SourceError, match="it has no text_encoder_2"):
        download(file, tmp_path / "out2", "text_encoder_2")


def test_a_distilled_u_net_whose_attentions_differ_is_refused(base, tmp_path):
    """SSD-1B left out transformer blocks of one half."""
    gone = "model.diffusion_model.output_blocks.0.1.transformer_blocks.2."
    file = write(tmp_path / "a.safetensors", {
        n: t for n, t in base[1].items() if not n.startswith(gone)})

    with pytest.raises(SourceError, match=r"level 2 have \[2, 3\] transformer blocks"):
        download(file, tmp_path / "out", "unet", family="sdxl")


def test_a_projection_that_is_no_matrix_is_refused(base, tmp_path):
    name = "conditioner.embedders.1.model.text_projection"
    file = write(tmp_path / "a.safetensors", base[1] | {name: torch.zeros(1280)})

    with pytest.raises(SourceError, match=r"has the shape \[1280\], expected a matrix"):
        download(file, tmp_path / "out", "text_encoder_2")


CONTROLNETS = {
    "1.5": {"block_out_channels": (64, 64, 128), "cross_attention_dim": 768,
            "attention_head_dim": 8, "transformer_layers_per_block": 1,
            "use_linear_projection": False, "addition_embed_type": None,
            "addition_time_embed_dim": None, "projection_class_embeddings_input_dim": None,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")},
    "xl": {},
}
CONTROLNETS["2.1"] = CONTROLNETS["1.5"] | {
    "cross_attention_dim": 1024, "attention_head_dim": (1, 1, 2), "use_linear_projection": True}


@pytest.mark.parametrize("prefix", ["control_model.", "", None], ids=["first", "bare", "diffusers"])
@pytest.mark.parametrize("generation", CONTROLNETS)
def test_a_controlnet_in_a_file_is_that_of_its_folder(tmp_path, generation, prefix):
    folder, state, tensors = small_controlnet(tmp_path / "folder", **CONTROLNETS[generation])
    named = state if prefix is None else {f"{prefix}{n}": t for n, t in tensors.items()}
    file = write(tmp_path / "a.safetensors", named)
    family = "sdxl" if generation == "xl" else "sd"

    found = download(file, tmp_path / "1", "controlnet", family=family)

    assert found == download(folder, tmp_path / "2", "controlnet", family=family)
    if generation != "xl" or prefix is None:  # diffusers forgets add_embedding of the first code
        wanted = ControlNetModel.from_single_file(
            str(file), config=str(folder), subfolder="controlnet", local_files_only=True,
            torch_dtype=torch.float16).state_dict()
        made = load_file(tmp_path / "1" / "weights.safetensors")
        assert made.keys() == wanted.keys()
        assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_the_first_files_of_controlnets_have_a_whole_checkpoint_beside_it(tmp_path):
    """As lllyasviel/ControlNet published `control_sd15_canny`: either can be read."""
    folder, states = small_checkpoint(tmp_path / "checkpoint", "clip")
    net, _, tensors = small_controlnet(tmp_path / "net", **CONTROLNETS["1.5"])
    file = write(tmp_path / "a.safetensors", joined(folder, states, "clip") | {
        f"control_model.{n}": t for n, t in tensors.items()})

    assert download(file, tmp_path / "1", "controlnet") == download(
        net, tmp_path / "2", "controlnet")
    assert download(file, tmp_path / "3", "unet") == download(folder, tmp_path / "4", "unet")


def test_a_controlnet_is_no_checkpoint(tmp_path):
    _, _, tensors = small_controlnet(tmp_path / "folder")
    file = write(tmp_path / "a.safetensors", {f"control_model.{n}": t for n, t in tensors.items()})

    with pytest.raises(SourceError, match="is a ControlNet, expected a checkpoint of Stable"):
        download(file, tmp_path / "out", "unet")
