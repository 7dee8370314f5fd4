"""A single file gives what the folder in diffusers' layout gives, byte for byte."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import infer, ldm, normalize, open_checkpoint
from sdbuild.safetensors.tensors import Tensor
from tests.single_files import (
    config_of,
    download,
    joined,
    single_file,
    small_checkpoint,
    write,
)

ROOT = Path(__file__).parent.parent.parent
TINY_EMOJI = ROOT / "recipes" / "tiny-emoji"
CONFIGS = Path(__file__).parent.parent / "fixtures" / "configs"
PARTS = {"unet": [("",)], "text_encoder": [("",)],
         "vae": [("decoder.", "post_quant_conv."), ("encoder.", "quant_conv.")]}
NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def assert_same(folder, file, tmp_path, config="", parts=PARTS):
    for part, halves in PARTS.items():
        if part not in parts:
            continue
        for i, prefixes in enumerate(halves):
            wanted = download(folder, tmp_path / "a" / f"{part}{i}", part, prefixes)
            made = download(file, tmp_path / "b" / f"{part}{i}", part, prefixes, config)
            assert made["weights.safetensors"] == wanted["weights.safetensors"], part
            assert made["architecture.json"] == wanted["architecture.json"], part


@pytest.fixture(params=["clip", "open_clip"])
def kind(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_file_gives_the_artifacts_of_its_folder(tmp_path, kind, dtype):
    folder, states = small_checkpoint(tmp_path / "folder", kind, dtype)
    file = write(tmp_path / "any name.safetensors", joined(folder, states, kind))

    assert_same(folder, file, tmp_path / "1", parts=PARTS if kind == "clip" else ("unet", "vae"))
    assert_same(folder, file, tmp_path / "2", folder, parts=("text_encoder",))


@pytest.mark.parametrize("changes", [{"in_channels": 9}, {"time_cond_proj_dim": 32}],
                         ids=["inpainting", "LCM"])
def test_a_u_net_with_other_inputs_is_read_as_diffusers_reads_it(tmp_path, kind, changes):
    """Whether it is built is for its family to say."""
    folder, states = small_checkpoint(tmp_path / "folder", kind, **changes)
    file = write(tmp_path / "x.safetensors", joined(folder, states, kind))
    checkpoint = open_checkpoint([str(file)], {})

    config, found = checkpoint.config("unet"), checkpoint.tensors("unet")

    with torch.device("meta"):
        wanted, made = (UNet2DConditionModel.from_config(c).config
                        for c in (config_of(folder, "unet"), config))
    assert {n: made[n] for n in wanted if n[0] != "_"} == {
        n: value for n, value in wanted.items() if n[0] != "_"}
    assert made["in_channels"] == changes.get("in_channels", 4)
    for name, tensor in states["unet"].items():
        assert b"".join(found[name].chunks()) == tensor.numpy().tobytes(), name
    assert found.keys() == states["unet"].keys()
    if "in_channels" in changes:
        network = UNet2DConditionModel.from_single_file(
            str(file), config=str(folder), subfolder="unet", local_files_only=True,
            torch_dtype=torch.float16)
        assert all(torch.equal(network.state_dict()[n], t) for n, t in states["unet"].items())


def test_tiny_emoji_as_a_file_with_its_configs_gives_the_artifacts_of_its_folder(tmp_path):
    states = {
        part: load_file(next((TINY_EMOJI / part).glob("*.safetensors")))
        for part in ("unet", "vae", "text_encoder")
    }
    file = write(tmp_path / "tiny.safetensors", joined(TINY_EMOJI, states, "clip"))

    assert_same(TINY_EMOJI, file, tmp_path, TINY_EMOJI)
    made = download(file, tmp_path / "c", "resources", config=TINY_EMOJI)
    wanted = download(TINY_EMOJI, tmp_path / "d", "resources")
    assert wanted.keys() - made.keys() == {"README.md"}
    assert made == {name: wanted[name] for name in made}


def test_diffusers_reads_the_same_networks_from_the_file(tmp_path, kind):
    folder, states = small_checkpoint(tmp_path / "folder", kind)
    file = write(tmp_path / "x.safetensors", joined(folder, states, kind))
    converters = [("unet", theirs.convert_ldm_unet_checkpoint),
                  ("vae", theirs.convert_ldm_vae_checkpoint)]

    for part, convert in converters:
        wanted = convert(load_file(file), config_of(folder, part))
        download(file, tmp_path / part, part)
        made = load_file(tmp_path / part / "weights.safetensors")
        assert made.keys() == wanted.keys()
        assert all(torch.equal(made[name], wanted[name]) for name in made)


def test_diffusers_reads_the_same_text_encoder_from_the_file(tmp_path, kind):
    folder, states = small_checkpoint(tmp_path / "folder", kind)
    file = write(tmp_path / "x.safetensors", joined(folder, states, kind))
    found = load_file(file)
    width = states["text_encoder"]["final_layer_norm.bias"].shape[0]
    if kind == "clip":
        wanted = theirs.convert_ldm_clip_checkpoint(found)
    else:
        model = CLIPTextModel(CLIPTextConfig(hidden_size=width, num_attention_heads=16))
        wanted = theirs.convert_open_clip_checkpoint(model, found)

    download(file, tmp_path / "out", "text_encoder", config=folder)

    made = load_file(tmp_path / "out" / "weights.safetensors")
    # diffusers knows by number which block is the last one; ours is block 2 here.
    unused = {n for n in wanted if "layers.2." in n or "position_ids" in n or "projection" in n}
    assert made.keys() == wanted.keys() - unused
    assert all(torch.equal(made[name], wanted[name]) for name in made)


def shapes_of(model, part):
    """The names and shapes of a real network, without its numbers."""
    config = json.loads((CONFIGS / model / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig(**config)).state_dict(), config
        return NETWORKS[part].from_config(config).state_dict(), config


def header(tensors, prefix):
    return {
        name.removeprefix(prefix): Tensor(
            name=name, dtype="F16", shape=tuple(t.shape), file=Path("x"), start=0,
            size_bytes=2 * t.numel())
        for name, t in tensors.items() if name.startswith(prefix)
    }


@pytest.mark.parametrize(("model", "kind"), [
    ("stable-diffusion-v1-5", "clip"), ("stable-diffusion-2-1", "open_clip"),
])
def test_the_real_sizes_have_the_names_shapes_and_configs_of_their_repositories(model, kind):
    parts = {part: shapes_of(model, part) for part in PARTS}
    tensors = single_file(parts["unet"], parts["vae"], (parts["text_encoder"][0], kind))
    clip = header(tensors, "cond_stage_model.model." if kind == "open_clip" else
                  "cond_stage_model.transformer.")
    found = {
        "unet": ldm.unet(header(tensors, "model.diffusion_model.")),
        "vae": ldm.vae(header(tensors, "first_stage_model.")),
        "text_encoder": ldm.first_layers(ldm.open_clip(clip), 23) if kind == "open_clip" else
                        ldm.renamed(clip),
    }

    for part, (state, config) in parts.items():
        made = {t.name: t.shape for t in normalize.tensors(part, found[part].values())}
        drop = "text_model." if part == "text_encoder" else ""
        assert {n.removeprefix(drop): s for n, s in made.items()} == {
            name: tuple(t.shape) for name, t in state.items()
        }
        known = infer.SECOND if kind == "open_clip" else infer.FIRST
        inferred = (infer.text_encoder("x", made, known) if part == "text_encoder"
                    else getattr(infer, part)("x", made))
        assert normalize.architecture(part, inferred) == normalize.architecture(part, config)


def test_names_without_text_model_are_those_with_it(tmp_path):
    folder, states = small_checkpoint(tmp_path / "folder", "clip")
    tensors = joined(folder, states, "clip")
    file = write(tmp_path / "a.safetensors", {
        n.replace("transformer.text_model.", "transformer."): t for n, t in tensors.items()
    })

    assert_same(folder, file, tmp_path)


def test_a_file_brings_clips_tokenizer_and_the_usual_scheduler(tmp_path):
    folder, states = small_checkpoint(tmp_path / "folder", "clip")
    file = write(tmp_path / "a.safetensors", joined(folder, states, "clip"))

    made = download(file, tmp_path / "out", "resources")

    assert len(json.loads(made["vocab.json"])) == 49408
    scheduler = json.loads(made["scheduler_config.json"])
    assert scheduler["prediction_type"] == "epsilon"
    assert (scheduler["beta_start"], scheduler["beta_end"]) == (0.00085, 0.012)
    assert json.loads(made["special_tokens_map.json"]) == {"pad_token": "<|endoftext|>"}


def test_the_vocabulary_is_clips_own():
    """The tokens follow from the merges: bytes, bytes that end a word, merged pairs, two marks."""
    clip = ROOT / "sdbuild" / "checkpoints" / "clip"
    merges = (clip / "merges.txt").read_text("utf-8").rstrip("\n").split("\n")[1:]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    wanted = [*letters, *(c + "</w>" for c in letters), *("".join(m.split()) for m in merges),
              "<|startoftext|>", "<|endoftext|>"]

    vocabulary = json.loads((clip / "vocab.json").read_text("utf-8"))

    assert sorted(vocabulary, key=vocabulary.__getitem__) == wanted
    assert list(vocabulary.values()) == list(range(49408))


def second(tmp_path, extra=None, metadata=None):
    folder, states = small_checkpoint(tmp_path / "folder", "open_clip")
    tensors = joined(folder, states, "open_clip") | (extra or {})
    return write(tmp_path / "a.safetensors", tensors, metadata)


def test_a_second_generation_file_must_be_told_what_it_predicts(tmp_path):
    file = second(tmp_path)

    with pytest.raises(SourceError, match="does not say what its U-Net predicts") as error:
        download(file, tmp_path / "out", "resources")
    assert "prediction_type=v_prediction for models made for 768x768" in error.value.hint
    made = download(file, tmp_path / "out2", "resources", prediction_type="v_prediction")
    assert json.loads(made["scheduler_config.json"])["prediction_type"] == "v_prediction"
    assert json.loads(made["special_tokens_map.json"]) == {"pad_token": "!"}


@pytest.mark.parametrize(("extra", "metadata", "wanted"), [
    ({"v_pred": torch.zeros(0)}, None, "v_prediction"),
    ({}, {"modelspec.prediction_type": "v"}, "v_prediction"),
    ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
    ({}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
    ({}, {"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
])
def test_what_a_file_itself_says_that_it_predicts_counts(tmp_path, extra, metadata, wanted):
    file = second(tmp_path, extra, metadata)

    made = download(file, tmp_path / "out", "resources")

    assert json.loads(made["scheduler_config.json"])["prediction_type"] == wanted


def test_a_changed_file_changes_the_identity_of_each_part(tmp_path):
    file = write(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    parts = ("unet", "vae", "text_encoder", "resources")
    before = {p: open_checkpoint([str(file)], {}).identity(p, digest_file) for p in parts}
    write(file, {"a": torch.ones(3)})

    after = {p: open_checkpoint([str(file)], {}).identity(p, digest_file) for p in parts}

    assert all(before[p] != after[p] for p in parts)
    assert "a.safetensors" not in json.dumps(after)


@pytest.mark.parametrize("names", ["of the first code", "of diffusers"])
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_an_autoencoder_alone_is_taken_by_either_names(tmp_path, names, prefix):
    folder, states = small_checkpoint(tmp_path / "folder", "clip")
    state = states["vae"]
    if names == "of the first code":
        tensors = joined(folder, states, "clip")
        prefixes = "first_stage_model."
        state = {n.removeprefix(prefixes): t for n, t in tensors.items() if n.startswith(prefixes)}
    file = write(tmp_path / "vae.safetensors", {prefix + n: t for n, t in state.items()})

    made = download(file, tmp_path / "out", "vae", ("decoder.",))

    assert made == download(folder, tmp_path / "out2", "vae", ("decoder.",))


def test_an_autoencoder_alone_in_a_folder_is_taken(tmp_path):
    folder, _ = small_checkpoint(tmp_path / "folder", "clip")

    made = download(folder / "vae", tmp_path / "out", "vae", ("decoder.",))

    assert made == download(folder, tmp_path / "out2", "vae", ("decoder.",))
