"""The history of one weight, compared with the bytes of the checkpoint and of the bundle."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sdbuild.store import Store
from tests.e2e.project import ROOT, run

CHECKPOINT = ROOT / "recipes" / "tiny-emoji"
FILES = {"text_encoder": "text_encoder/model.safetensors",
         "unet": "unet/diffusion_pytorch_model.safetensors",
         "vae_decoder": "vae/diffusion_pytorch_model.safetensors",
         "vae_encoder": "vae/diffusion_pytorch_model.safetensors"}
COMPONENTS = list(FILES)


def weight(project, component, tensor, *words, status=0):
    command = [sys.executable, "-m", "sdbuild", "weight", "tiny-emoji", component, tensor,
               f"cache={project.cache}", *words]
    return run(command, status)


def stops(project, component, tensor, *words):
    printed = json.loads(weight(project, component, tensor, *words, "--json"))
    return {stop["step"]: stop for stop in printed["stops"]}


def content(bundle, place):
    """The bytes of a place in the bundle."""
    data = (bundle / place["file"]).read_bytes()
    return data[place["offset"]:place["offset"] + place["size_bytes"]]


def unpacked(data, nbits, count):
    """Numbers of some bits each, the lowest first."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:nbits * count]
    return bits.reshape(count, nbits) @ (1 << np.arange(nbits))


@pytest.mark.parametrize("component, tensor", [
    ("unet", "conv_in.weight"),
    ("unet", "time_embedding.linear_1.weight"),
    ("unet", "up_blocks.1.resnets.0.conv1.weight"),
    ("text_encoder", "text_model.embeddings.token_embedding.weight"),
    ("text_encoder", "text_model.encoder.layers.0.mlp.fc1.weight"),
])
def test_a_palettized_weight_is_its_table_at_its_indices_within_the_reported_error(
    project, component, tensor,
):
    project.doit("build")
    found = stops(project, component, tensor)
    facts = found[f"palettize:{component}"]["facts"]
    parts = {place["part"]: place for place in found["bundle"]["places"]}

    table = np.frombuffer(content(project.bundle, parts["lut"]), "<f2").astype(np.float32)
    exact = load_file(CHECKPOINT / FILES[component])[tensor].astype(np.float32)
    places = unpacked(content(project.bundle, parts["indices"]), facts["bits"], exact.size)
    is_transposed = found[f"lower:{component}"]["facts"]["is_transposed"]
    error = table[places] - (exact.T if is_transposed else exact).reshape(-1)

    assert len(table) == 2 ** facts["bits"]
    assert np.abs(error).max() == pytest.approx(facts["max_error"], rel=1e-3)
    assert np.sqrt(np.mean(error.astype(np.float64) ** 2)) == pytest.approx(
        facts["rms_error"], rel=1e-3)


@pytest.mark.parametrize("component, tensor", [
    ("unet", "conv_norm_out.weight"),
    ("vae_decoder", "decoder.mid_block.attentions.0.to_q.weight"),
    ("vae_decoder", "decoder.conv_in.weight"),
    ("vae_encoder", "encoder.conv_out.weight"),
    ("text_encoder", "text_model.final_layer_norm.bias"),
])
def test_a_weight_that_is_not_palettized_is_the_checkpoints_in_fp16(project, component, tensor):
    project.doit("build")
    found = stops(project, component, tensor)
    (place,) = found["bundle"]["places"]

    exact = load_file(CHECKPOINT / FILES[component])[tensor]
    if found[f"lower:{component}"]["facts"]["is_transposed"]:
        exact = exact.T

    assert content(project.bundle, place) == exact.astype(np.float16).tobytes()


def test_every_step_says_where_it_has_the_weight(project):
    """The U-Net's last weight is in the second chunk only."""
    project.doit("build")

    found = stops(project, "unet", "conv_out.weight")

    assert list(found) == ["checkpoint", "download:unet", "lower:unet", "convert:unet",
                           "palettize:unet", "chunk:unet", "compile:unet", "bundle"]
    files = {place["file"] for place in found["bundle"]["places"]}
    assert files == {"UnetChunk2.mlmodelc/weights/weight.bin"}
    assert found["compile:unet"]["places"] == found["bundle"]["places"]
    assert found["checkpoint"]["facts"]["files"].keys() == {FILES["unet"]}


def test_a_weight_of_bits_of_its_own_is_told_with_them(project, tmp_path):
    bits = tmp_path / "bits.json"
    bits.write_text('{"schema": 1, "components": {"unet": {"conv_in.weight": 8, "*": 4}}}', "utf-8")
    words = (f"bits={bits}",)
    project.doit("assign:unet", *words)

    found = stops(project, "unet", "conv_in.weight", *words)["assign:unet"]
    assert found["says"] == f"{found['facts']['name']}: 8 bits: an error of " \
        f"{found['facts']['rms_error']:.3g} (rms), at most {found['facts']['max_error']:.3g}, " \
        f"{found['facts']['snr_db']:.1f} dB below the weight"
    assert {place["part"] for place in found["places"]} == {"indices", "lut"}


def test_a_weight_of_fewer_values_than_its_table_has_is_told_as_one_that_lost_nothing(
        project, own_checkpoint):
    file = own_checkpoint / FILES["unet"]
    tensors = load_file(file)
    tensors["conv_in.weight"] = np.where(tensors["conv_in.weight"] > 0, 0.5, -0.25).astype(
        tensors["conv_in.weight"].dtype)
    save_file(tensors, file)
    source = f"source={own_checkpoint}"
    project.doit("palettize:unet", "model=tiny-emoji", source)

    printed = weight(project, "unet", "conv_in.weight", source)

    assert ": 6 bits: nothing is lost\n" in printed


def test_a_weight_that_is_written_in_the_program_says_so(project):
    printed = weight(project, "vae_decoder", "decoder.conv_out.bias", "quant=none", "chunk=1")

    assert "weight: fp16 [3] in the program VAEDecoder.mlmodelc" in printed


def test_what_is_not_made_yet_is_said(project):
    found = stops(project, "unet", "conv_out.weight", "quant=8", "chunk=1")

    assert found["convert:unet"]["places"]
    assert {found[step]["says"] for step in ("palettize:unet", "compile:unet", "bundle")} == {
        "not made yet"}


def test_mistakes_are_reported_with_the_nearest_name(project):
    assert 'did you mean "conv_out.weight"?' in weight(project, "unet", "conv_out.wieght",
                                                       status=2)
    assert 'did you mean "unet"?' in weight(project, "unnet", "conv_out.weight", status=2)


def test_a_checkpoint_that_is_not_downloaded_says_what_helps(tmp_path):
    command = [sys.executable, "-m", "sdbuild", "weight", "tiny-emoji", "unet", "conv_in.weight",
               f"cache={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert "hint: sdbuild build download:unet" in done.stderr


def test_every_tensor_of_the_checkpoint_is_used_once_or_unused_for_a_reason(project):
    store = Store(project.cache)
    records = {record.step: record for record in store.records()}
    used = {}
    for component in COMPONENTS:
        table = json.loads(store.file(records[f"lower:{component}"], "bindings.json").read_text())
        bound = [b["parameter"] for b in table["bindings"] if b["parameter"]]
        assert len(bound) == len(set(bound))
        reasons = records[f"convert:{component}"].facts["unused"]
        assert all(reasons.values())
        prefix = "text_model." if component == "text_encoder" else ""
        used[component] = {prefix + name.removeprefix("net.") for name in (*bound, *reasons)}

    for file in set(FILES.values()):
        holders = [used[c] for c in COMPONENTS if FILES[c] == file]
        assert set().union(*holders) == load_file(CHECKPOINT / file).keys()
        assert sum(map(len, holders)) == len(set().union(*holders))
