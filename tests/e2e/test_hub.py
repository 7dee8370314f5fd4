"""Checkpoints from the Hub, read from one on this machine; what is asked of it is counted."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load, save
from transformers import CLIPTokenizer

from sdbuild.store import Store
from tests.e2e.hub_checkpoints import (
    CHECKPOINT,
    PLACE,
    SCHEDULER,
    UNET,
    content,
    files_asked_for,
    record,
    sharded,
    with_other_weights,
)


def test_a_place_on_the_hub_gives_the_same_artifacts_as_the_folder(project, hub, tiny):
    ran = project.ran("build", source=PLACE)

    assert ran == {f"download:{part}" for part in (
        "resources", "text_encoder", "unet", "vae_decoder", "vae_encoder")} | {"bundle"}
    hub.requests.clear()
    assert project.ran("build", source=PLACE) == set()
    assert hub.requests == []


def test_only_the_files_that_a_part_needs_are_fetched_and_the_metadata_once(
    new_project, hub, tiny,
):
    new_project.doit("download:unet", source=PLACE)

    assert hub.paths().count("/api/models/owner/tiny") == 1
    assert files_asked_for(hub) == [SCHEDULER, "unet/config.json", UNET]


def test_a_second_build_asks_nothing_and_does_not_import_huggingface_hub(
    new_project, hub, tiny, tmp_path, monkeypatch,
):
    new_project.doit("download", source=PLACE)
    hub.requests.clear()
    poison = tmp_path / "poison" / "huggingface_hub.py"
    poison.parent.mkdir()
    poison.write_text("raise AssertionError('huggingface_hub was imported')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(poison.parent), os.environ.get("PYTHONPATH", "")]))

    assert new_project.ran("download", source=PLACE) == set()
    assert hub.requests == []


def test_a_record_says_which_commit_it_is_of(new_project, hub, tiny):
    new_project.doit("download:unet", source=PLACE)

    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"


# which files


def test_shards_are_found_by_their_index_and_give_the_same_artifact(new_project, hub, tiny):
    hub.add("owner/shards", with_other_weights(sharded))
    new_project.doit("download:unet", source=PLACE)
    whole = record(new_project, "download:unet").digest()
    hub.requests.clear()

    new_project.doit("download:unet", source="hub:owner/shards")

    assert files_asked_for(hub) == [
        SCHEDULER, "unet/config.json", "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ]
    made = [r for r in Store(new_project.cache).records() if r.step == "download:unet"]
    assert [r.digest() for r in made] == [whole, whole]
    hub.requests.clear()
    assert new_project.ran("download:unet", source="hub:owner/shards") == set()
    assert hub.requests == []


@pytest.mark.parametrize("form", ["whole", "sharded"])
def test_an_fp16_variant_is_taken_rather_than_fp32(new_project, hub, form):
    files = content()
    half = {name: tensor.astype(np.float16) for name, tensor in load(files[UNET]).items()}
    if form == "whole":
        files |= {"unet/diffusion_pytorch_model.fp16.safetensors": save(half)}
    else:
        files |= sharded(half, "unet/diffusion_pytorch_model.fp16", "")
        index = files.pop("unet/diffusion_pytorch_model.fp16.")
        files["unet/diffusion_pytorch_model.safetensors.index.fp16.json"] = index
    hub.add("owner/tiny", files)

    new_project.doit("download:unet", source=PLACE)

    asked = files_asked_for(hub)
    assert UNET not in asked
    assert any(".fp16" in file and file.endswith(".safetensors") for file in asked)


def test_a_repository_of_pickles_is_refused_with_how_to_convert_it(new_project, hub):
    files = content()
    files["unet/diffusion_pytorch_model.bin"] = files.pop(UNET)
    hub.add("owner/tiny", files)

    printed = new_project.doit("download", status=1, source=PLACE)

    assert "unet/diffusion_pytorch_model.bin is a pickle, which can run code" in printed
    assert "safe_serialization=True" in printed
    assert files_asked_for(hub) == []


def test_a_tokenizer_in_one_file_is_fetched_as_one_and_read_as_two(new_project, hub, tmp_path):
    files = {n: c for n, c in content().items() if not n.startswith("tokenizer/")}
    CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer").save_pretrained(tmp_path / "saved")
    saved = {f"tokenizer/{path.name}": path.read_bytes()
             for path in (tmp_path / "saved").iterdir()}
    hub.add("owner/tiny", files | saved)

    new_project.doit("download:resources", source=PLACE)

    assert [f for f in files_asked_for(hub) if f.startswith("tokenizer/")] == [
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
    made = record(new_project, "download:resources")
    vocabulary = Store(new_project.cache).file(made, "vocab.json").read_bytes()
    assert json.loads(vocabulary) == json.loads((CHECKPOINT / "tokenizer/vocab.json").read_bytes())
    assert "tokenizer.json" not in {entry.path for entry in made.tree}


def test_a_file_that_the_repository_lacks_is_named(new_project, hub):
    hub.add("owner/tiny", {n: c for n, c in content().items() if n != "tokenizer/vocab.json"})

    printed = new_project.doit("download", status=1, source=PLACE)

    assert "no tokenizer/vocab.json, expected a checkpoint in diffusers' layout" in printed


# revisions


def test_a_branch_stays_at_the_commit_that_was_asked_first_until_refresh(new_project, hub, tiny):
    new_project.doit("download:unet", source=PLACE)
    moved = hub.commit("owner/tiny", with_other_weights(
        lambda tensors: {UNET: save({n: t * 2 for n, t in tensors.items()})}))

    assert new_project.ran("download:unet", source=PLACE) == set()
    assert new_project.why("download:unet", source=PLACE)["source"].startswith(
        f"{PLACE} is at {tiny}, as first resolved")

    printed = new_project.sdbuild("refresh", source=PLACE)
    assert f"{PLACE}  {tiny[:12]} → {moved[:12]}" in printed
    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_refresh_without_the_hub_leaves_what_was_known(new_project, hub, tiny):
    new_project.doit("download:unet", source=PLACE)
    hub.close()

    printed = new_project.sdbuild("refresh", status=1, source=PLACE)

    assert f"{PLACE}: " in printed
    assert new_project.ran("download:unet", source=PLACE) == set()


@pytest.mark.parametrize("revision", ["v1", "refs/pr/4", "{commit}"])
def test_a_tag_a_pull_request_and_a_commit_are_revisions(new_project, hub, tiny, revision):
    hub.repositories["owner/tiny"].branches |= {"v1": tiny, "refs/pr/4": tiny}
    hub.commit("owner/tiny", {"README.md": b"gone"})

    new_project.doit("download:unet", source=f"{PLACE}@{revision.format(commit=tiny)}")

    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"
