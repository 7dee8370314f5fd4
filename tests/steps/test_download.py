"""A checkpoint comes out in one form, whatever form it came in."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import open_checkpoint
from sdbuild.checkpoints.folder import Folder
from sdbuild.engine.stage import Job, stage
from sdbuild.safetensors import tensors
from sdbuild.safetensors.decode import expect_finite
from tests.in_place import assert_same_in_place

CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
UNET = "diffusion_pytorch_model"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 1059962\n"


@pytest.fixture
def checkpoint(tmp_path):
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def download(
    checkpoint, tmp_path, part="unet", prefixes=("",), name="out", sidecars=(), beside=(),
):
    output = tmp_path / name
    output.mkdir()
    job = Job(
        params={"prefixes": list(prefixes)}, inputs={}, output=output, places=[str(checkpoint)],
        reads=[part, *sidecars], beside=[str(place) for place in beside],
    )
    facts = stage("download").run(job)
    assert_same_in_place(job, facts)
    return {p.name: p.read_bytes() for p in output.iterdir()}, facts


def rewrite(checkpoint, how):
    """Writes the U-Net's weights in another form."""
    folder = checkpoint / "unet"
    path = folder / f"{UNET}.safetensors"
    found = load_file(path)
    path.unlink()
    how(folder, found)


def shard(folder, found, shards=f"{UNET}-{{}}.safetensors", index=f"{UNET}.safetensors.index.json"):
    names = sorted(found)
    parts = {"00001-of-00002": names[::2], "00002-of-00002": names[1::2]}
    named = {}
    for part, members in parts.items():
        save_file({n: found[n] for n in members}, folder / shards.format(part))
        named |= dict.fromkeys(members, shards.format(part))
    (folder / index).write_text(json.dumps({"weight_map": named}))


FORMS = {
    "shards with an index": shard,
    "an fp16 variant": lambda folder, found: save_file(
        found, folder / f"{UNET}.fp16.safetensors"),
    "an fp16 variant in shards": partial(
        shard, shards=f"{UNET}.fp16-{{}}.safetensors",
        index=f"{UNET}.safetensors.index.fp16.json"),
    "an fp16 variant in shards of an older diffusers": partial(
        shard, shards=f"{UNET}-{{}}.fp16.safetensors",
        index=f"{UNET}.safetensors.fp16.index.json"),
    "another name": lambda folder, found: save_file(found, folder / "model.safetensors"),
    "a header of another order, with metadata": lambda folder, found: save_file(
        dict(reversed(found.items())), folder / f"{UNET}.safetensors", {"format": "pt"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_tensors_give_the_same_bytes_whatever_form_they_came_in(
    checkpoint, tmp_path, form,
):
    wanted, _ = download(checkpoint, tmp_path)
    rewrite(checkpoint, FORMS[form])

    assert download(checkpoint, tmp_path, name="again")[0] == wanted


def test_what_it_writes_is_a_safetensors_file_with_the_same_tensors(checkpoint, tmp_path):
    download(checkpoint, tmp_path)

    made = load_file(tmp_path / "out" / "weights.safetensors")

    wanted = load_file(checkpoint / "unet" / f"{UNET}.safetensors")
    assert made.keys() == wanted.keys()
    assert all(made[n].dtype == w.dtype and (made[n] == w).all() for n, w in wanted.items())


def test_a_half_of_the_autoencoder_takes_its_own_tensors_only(checkpoint, tmp_path):
    prefixes = ("decoder.", "post_quant_conv.")

    download(checkpoint, tmp_path, "vae", prefixes)

    with safe_open(tmp_path / "out" / "weights.safetensors", "numpy") as file:
        assert all(name.startswith(prefixes) for name in file.keys())  # noqa: SIM118


def test_the_architecture_leaves_out_what_does_not_define_the_network(checkpoint, tmp_path):
    wanted, _ = download(checkpoint, tmp_path)
    path = checkpoint / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(
        config | {"_diffusers_version": "9", "_name_or_path": "x", "torch_dtype": "float32"},
        indent=4,
    ))

    made, _ = download(checkpoint, tmp_path, name="again")

    assert made["architecture.json"] == wanted["architecture.json"]
    found = json.loads(made["architecture.json"])
    assert found["class"] == "UNet2DConditionModel"
    assert found["config"]["cross_attention_dim"] == 64


def changed(checkpoint, part, **fields):
    path = checkpoint / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_how_latents_are_scaled_is_kept_beside_the_architecture_and_not_in_it(
    checkpoint, tmp_path,
):
    wanted, _ = download(checkpoint, tmp_path, "vae", ("decoder.",))
    changed(checkpoint, "vae", scaling_factor=0.5)

    made, _ = download(checkpoint, tmp_path, "vae", ("decoder.",), name="again")

    assert json.loads(wanted["latents.json"]) == {"scaling_factor": 0.18215}
    assert json.loads(made["latents.json"]) == {"scaling_factor": 0.5}
    assert {n: c for n, c in made.items() if n != "latents.json"} == {
        n: c for n, c in wanted.items() if n != "latents.json"}


def test_an_autoencoder_of_an_old_config_has_the_scale_of_its_time(checkpoint, tmp_path):
    path = checkpoint / "vae" / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]
    path.write_text(json.dumps(config))

    made, _ = download(checkpoint, tmp_path, "vae", ("decoder.",))

    assert json.loads(made["latents.json"]) == {"scaling_factor": 0.18215}


@pytest.mark.parametrize("scale", [0, -1, "0.18215", None, True, [1], 1e9])
def test_a_scale_of_latents_that_can_be_none_is_refused(checkpoint, tmp_path, scale):
    changed(checkpoint, "vae", scaling_factor=scale)

    with pytest.raises(SourceError, match=r"vae/config\.json: scaling_factor is .*, expected a n"):
        download(checkpoint, tmp_path, "vae", ("decoder.",))


def test_a_network_without_latents_has_no_scale_of_them(checkpoint, tmp_path):
    assert sorted(download(checkpoint, tmp_path)[0]) == [
        "architecture.json", "weights.safetensors"]


def test_the_facts_hold_the_digest_of_each_tensor(checkpoint, tmp_path):
    import xxhash

    _, facts = download(checkpoint, tmp_path)

    wanted = load_file(checkpoint / "unet" / f"{UNET}.safetensors")
    assert facts["tensors"] == {
        name: xxhash.xxh3_128_hexdigest(array.tobytes()) for name, array in wanted.items()
    }


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 1}}',
                                     '{"weight_map": {"a": "../../x.safetensors"}}',
                                     '{"weight_map": {"a": ""}}', '{"weight_map": {"a": ".."}}',
                                     '{"weight_map": {"a": ".safetensors"}}',
                                     '{"weight_map": {"a": "config.json"}}',
                                     '{"weight_map": {"a": "a\\u0000.safetensors"}}',
                                     '{"weight_map": [[["a"]]]}', "[" * 10_000, POINTER.decode()])
def test_an_index_that_is_none_or_leads_away_is_refused(checkpoint, content):
    rewrite(checkpoint, lambda folder, _: (
        folder / f"{UNET}.safetensors.index.json").write_text(content))

    with pytest.raises(SourceError, match=r"index\.json"):
        Folder(checkpoint).identity("unet", digest_file)


def test_a_shard_that_is_missing_is_named(checkpoint):
    rewrite(checkpoint, shard)
    (checkpoint / "unet" / f"{UNET}-00002-of-00002.safetensors").unlink()

    with pytest.raises(SourceError, match=f"no unet/{UNET}-00002-of-00002.safetensors"):
        Folder(checkpoint).identity("unet", digest_file)


def test_a_checkpoint_without_an_autoencoder_says_where_to_take_one(checkpoint, tmp_path):
    shutil.rmtree(checkpoint / "vae")

    with pytest.raises(SourceError, match="no vae, only scheduler") as error:
        download(checkpoint, tmp_path, "vae", ("decoder.",))
    assert error.value.hint == "vae=LOCATION uses another autoencoder"


def test_a_folder_that_is_no_checkpoint_is_told_what_one_is(tmp_path):
    (tmp_path / "any" / "pictures").mkdir(parents=True)
    (tmp_path / "any" / "pictures" / "a.png").write_bytes(b"")

    with pytest.raises(SourceError, match="no text_encoder, only pictures") as error:
        download(tmp_path / "any", tmp_path, "text_encoder")
    assert error.value.hint.startswith("a folder as diffusers' save_pretrained writes it")


def test_another_network_in_the_place_of_the_autoencoder_is_reported(checkpoint, tmp_path):
    with pytest.raises(SourceError, match="UNet2DConditionModel'; expected AutoencoderKL"):
        download(checkpoint / "unet", tmp_path, "vae", ("decoder.",))


def test_a_t5_that_has_only_a_decoder_is_refused(tmp_path):
    folder = tmp_path / "checkpoint" / "text_encoder_3"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["T5EncoderModel"]}')
    save_file({"decoder.w": np.zeros(3, np.float32)}, folder / "model.safetensors")

    with pytest.raises(SourceError, match="text_encoder_3: no tensor of it\n"):
        download(folder.parent, tmp_path, "text_encoder_3", ("",))


@pytest.mark.parametrize("name", ["README.md", "LICENSE"])
def test_a_card_or_licence_that_is_not_utf_8_is_copied_as_it_is(checkpoint, tmp_path, name):
    content = "---\nlicense: mit\n---\nPortr\xe4ts, \xa9 2024\n".encode("latin-1")
    (checkpoint / name).write_bytes(content)

    assert download(checkpoint, tmp_path, "resources")[0][name] == content


@pytest.mark.parametrize("name, content, message", [
    ("tokenizer/vocab.json", POINTER, "vocab.json: not JSON: a Git LFS pointer"),
    ("tokenizer/merges.txt", POINTER, "merges.txt: a Git LFS pointer"),
    ("scheduler/scheduler_config.json", b"Entry not found", "the Hub's answer that there is no"),
    ("tokenizer/merges.txt", b"#version\n\xdf x\n", "merges.txt: not UTF-8 at byte 9"),
    ("tokenizer/merges.txt", b"#version: 0.2\n", "no rules"),
    ("tokenizer/vocab.json", b'{"a": 0, "b": 1.5}', "1.5 for 'b', expected an integer"),
    ("tokenizer/vocab.json", b'{"a": 0}', r"no number for <\|startoftext\|>"),
    ("tokenizer/tokenizer_config.json", b'{"pad_token": {"content": "\xe9"}}', "not UTF-8"),
    ("tokenizer/special_tokens_map.json", b"[]", "expected a JSON object"),
])
def test_a_broken_tokenizer_or_scheduler_is_refused_before_any_other_step(
    checkpoint, tmp_path, name, content, message,
):
    (checkpoint / name).write_bytes(content)

    with pytest.raises(SourceError, match=message):
        download(checkpoint, tmp_path, "resources")


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "²", "1e3", ""])
def test_added_tokens_with_absurd_numbers_are_ignored(checkpoint, tmp_path, number):
    (checkpoint / "tokenizer/tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {number: {"content": "<pad>"}}}))

    assert download(checkpoint, tmp_path, "text_encoder", sidecars=["tokenizer"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_a_tensor_with_nan_or_infinity_is_refused_with_its_file(
    checkpoint, tmp_path, dtype, number,
):
    path = checkpoint / "unet" / f"{UNET}.safetensors"
    found = load_file(path)
    found["conv_in.bias"] = found["conv_in.bias"].astype(dtype)
    found["conv_in.bias"][3] = number
    save_file(found, path)

    with pytest.raises(SourceError) as error:
        download(checkpoint, tmp_path)
    assert error.value.message == f"{path}: the tensor conv_in.bias holds NaN or infinity"


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_the_bits_of_all_numbers_of_16_bits_are_finite_as_torch_says(dtype):
    import torch

    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(torch.bfloat16 if dtype == "BF16" else torch.float16)
    size = 2
    if dtype == "F32":
        numbers, size = (bits.to(torch.int32) << 16).view(torch.float32), 4
    data = numbers.view(torch.uint8).numpy().tobytes()
    tensor = tensors.Tensor(name="w", dtype=dtype, shape=(1,), file=Path("f"), start=0,
                            size_bytes=size)

    def is_finite(one):
        try:
            expect_finite(tensor, one)
        except SourceError:
            return False
        return True

    found = [is_finite(data[i:i + size]) for i in range(0, len(data), size)]
    assert found == torch.isfinite(numbers).tolist()


@pytest.mark.parametrize("part, field, value, tensor, expected", [
    ("unet", "cross_attention_dim", 65, r"attn2\.to_k\.weight", r"\[…, 65\]"),
    ("unet", "block_out_channels", [96, 64], r"conv_(in|out)\.weight", "96"),
    ("vae", "block_out_channels", [32, 32, 32, 96], r"decoder\.conv_in\.weight", r"\[96, …"),
    ("text_encoder", "hidden_size", 128, r"token_embedding\.weight", r"\[…, 128\]"),
    ("text_encoder", "vocab_size", 49409, r"token_embedding\.weight", r"\[49409, …\]"),
])
def test_a_config_that_does_not_fit_the_weights_is_refused_before_any_network_is_built(
    checkpoint, tmp_path, part, field, value, tensor, expected,
):
    changed(checkpoint, part, **{field: value})
    where = str(checkpoint / part)

    with pytest.raises(SourceError, match=f"{tensor} has the shape .*{expected}.* by {field} of "
                       f"{part}/config.json") as error:
        download(checkpoint, tmp_path, part)
    assert error.value.message.startswith(where)


@pytest.mark.parametrize("scale", [0, float("nan")])
def test_a_scale_of_latents_is_refused_with_the_checkpoint_and_its_field(
    checkpoint, tmp_path, scale,
):
    changed(checkpoint, "vae", scaling_factor=scale)

    with pytest.raises(SourceError, match="scaling_factor") as error:
        download(checkpoint, tmp_path, "vae", ("decoder.",))
    assert str(checkpoint) in error.value.message
    assert "vae/config.json" in error.value.message


def test_a_broken_tokenizer_is_refused_with_its_checkpoint(checkpoint, tmp_path):
    (checkpoint / "tokenizer/vocab.json").write_text('{"!": 0}')

    with pytest.raises(SourceError, match=r"vocab\.json: no number for") as error:
        download(checkpoint, tmp_path, "text_encoder", sidecars=["tokenizer"])
    assert error.value.message.startswith(f"{checkpoint}: ")


@pytest.mark.parametrize("commits, hint", [
    (["0a" * 20], f"use snapshots/{'0a' * 20} or hub:ann/tiny"), ([], "snapshots"),
])
def test_the_cache_of_a_repository_says_where_its_checkpoint_is(tmp_path, commits, hint):
    root = tmp_path / "models--ann--tiny"
    for name in ("blobs", "refs", "snapshots", *(f"snapshots/{commit}" for commit in commits)):
        (root / name).mkdir(parents=True)

    with pytest.raises(SourceError, match="the Hub's cache of a repository") as error:
        Folder(root)
    assert hint in error.value.hint.replace(", or", " or")
    assert "hub:ann/tiny" in error.value.hint


def test_of_places_that_are_not_there_one_may_have_a_comma_in_its_name(tmp_path):
    with pytest.raises(SourceError, match="the checkpoint was not found") as error:
        open_checkpoint([str(tmp_path / "a"), str(tmp_path / "b.safetensors")], {})
    assert "commas separate several" in error.value.hint
