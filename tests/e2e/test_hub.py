"""Checkpoints from the Hub, read from one on this machine; what is asked of it is counted."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub
from safetensors.numpy import load, save
from transformers import CLIPTokenizer

from sdbuild.store import Store

CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
UNET = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
PLACE = "hub:owner/tiny"


def content(folder=CHECKPOINT):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub, and an environment that knows no other."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.close()


@pytest.fixture
def tiny(hub):
    """The commit of the built-in checkpoint at `owner/tiny`."""
    return hub.add("owner/tiny", content())


def record(project, step):
    return next(r for r in Store(project.cache).records() if r.step == step)


def files_asked_for(hub):
    return sorted(path.partition("/resolve/")[2].partition("/")[2]
                  for path in hub.paths("HEAD") if "/resolve/" in path)


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


def with_other_weights(how):
    """The checkpoint, with the U-Net's weights in another form."""
    files = content()
    tensors = load(files.pop(UNET))
    return files | how(tensors)


def sharded(tensors, stem="unet/diffusion_pytorch_model", index="safetensors.index.json"):
    names = sorted(tensors)
    parts = {f"{stem}-0000{n}-of-00002.safetensors": names[n - 1::2] for n in (1, 2)}
    weight_map = {name: Path(file).name for file, members in parts.items() for name in members}
    return {f"{stem}.{index}": json.dumps({"weight_map": weight_map}).encode()} | {
        file: save({name: tensors[name] for name in members}) for file, members in parts.items()}


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
        f"{PLACE} is at {tiny}, as first asked")

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


# what goes wrong, before anything starts


def test_a_gated_repository_names_the_page_of_its_licence(new_project, hub, monkeypatch):
    hub.add("owner/tiny", content(), is_gated=True)

    printed = new_project.doit("build", status=1, source=PLACE)

    assert f"{PLACE}: its owner asks you to accept a licence first" in printed
    assert f"{hub.url}/owner/tiny" in printed
    assert "hf auth login" in printed
    assert "download:" not in printed
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_private_repository_is_read_with_a_token_which_is_kept_nowhere(
    new_project, hub, monkeypatch,
):
    hub.add("owner/tiny", content(), is_private=True)
    printed = new_project.doit("build", status=1, source=PLACE)
    assert "there is no such repository, or it is private" in printed
    monkeypatch.setenv("HF_TOKEN", hub.token)

    new_project.doit("download:unet", source=PLACE)

    kept = [p.read_bytes() for p in new_project.cache.rglob("*.json")]
    assert kept
    assert not any(hub.token.encode() in content for content in kept)
    to_cdn = [has_token for _, path, has_token in hub.requests if "/owner/" not in path]
    assert to_cdn == [False]


@pytest.mark.parametrize("place, message", [
    ("hub:owner/tinny", "hub:owner/tinny: there is no such repository, or it is private"),
    ("hub:owner/tiny@v9", "hub:owner/tiny@v9: the repository has no such revision"),
])
def test_what_is_not_there_is_told(new_project, hub, tiny, place, message):
    assert message in new_project.doit("build", status=1, source=place)


@pytest.mark.parametrize("fault, message", [
    ({"status": 429, "headers": {"Retry-After": "120"}}, "try again in 120 seconds"),
    ({"status": 429}, "has had too many requests from here (429)"),
    ({"status": 500}, "answers 500"),
    ({"status": 503, "text": "<html>down</html>"}, "answers 503"),
    ({"status": 401, "headers": {
        "X-Error-Message": "Invalid credentials in Authorization header"}},
     "does not let us in (401)"),
    ({"status": 403}, "does not let us in (403)"),
    ({"status": 200, "text": "<html>log in to this network</html>"},
     "does not answer as a Hub does"),
    ({"status": 200, "text": "{}"}, "does not answer as a Hub does"),
    ({"cut_after": 10}, "cannot reach 127.0.0.1"),
])
def test_a_hub_that_refuses_is_told_before_anything_starts(
    new_project, hub, tiny, fault, message,
):
    hub.fail("/api/models", **fault)

    printed = new_project.doit("build", status=1, source=PLACE)

    assert message in printed
    assert "hint: " in printed
    assert "download:" not in printed
    assert len(hub.requests) == 1


def test_what_was_refused_once_is_asked_again_the_next_time(new_project, hub, tiny):
    hub.fail("/api/models", status=500, times=1)
    new_project.doit("download:unet", status=1, source=PLACE)

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_hub_that_hangs_is_told(new_project, hub, tiny, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    hub.fail("/api/models", wait_s=3)

    assert "cannot reach 127.0.0.1" in new_project.doit("build", status=1, source=PLACE)


def test_an_endpoint_that_is_no_url_is_told(new_project, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "localhost")

    printed = new_project.doit("build", status=1, source=PLACE)

    assert "cannot reach HF_ENDPOINT=localhost" in printed


def test_a_hub_that_is_not_there_is_told_without_its_password(new_project, hub, monkeypatch):
    hub.close()
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//me:secret@"))

    printed = new_project.doit("build", status=1, source=PLACE)

    assert f"{PLACE}: cannot reach {hub.url.removeprefix('http://')}: Connection refused" in printed
    assert "secret" not in printed


def test_a_name_without_hub_is_taken_for_a_folder_and_gets_a_hint(new_project, hub, tiny):
    printed = new_project.doit("build", status=1, source="owner/tiny")

    assert 'did you mean "hub:owner/tiny"?' in printed


# what goes wrong on the way


def test_a_cut_connection_is_resumed_where_it_was_cut(new_project, hub):
    """huggingface_hub keeps what came in pieces of 10 MiB."""
    padding = np.zeros(30_000_000, np.uint8)
    hub.add("owner/tiny", with_other_weights(lambda found: {UNET: save(found | {"x": padding})}))
    hub.fail("^/[0-9a-f]{64}$", cut_after=25_000_000, times=1)

    new_project.doit("download:unet", source=PLACE)

    assert hub.ranges == [None, f"bytes={20 << 20}-"]


@pytest.mark.parametrize("file, pattern", [
    (UNET, "^/[0-9a-f]{64}$"), ("unet/config.json", "resolve/.*unet/config.json"),
])
def test_content_that_is_not_what_the_hub_promises_is_refused_naming_both_digests(
    new_project, hub, tiny, file, pattern,
):
    """A cache in between that answers with other bytes of the same size."""
    hub.fail(pattern, swap=b"{" + b" " * (len(content()[file]) - 1))

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert f"{PLACE}@{tiny}: {file} came with the digest" in printed
    assert ", expected sha256:" in printed or ", expected git:" in printed
    hub.faults.clear()
    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_damaged_file_in_the_hubs_cache_is_named_and_fetched_again(new_project, hub, tiny):
    new_project.doit("download:unet", source=PLACE)
    blob = next(p for p in (Path(os.environ["HF_HOME"]) / "hub").rglob("blobs/*")
                if p.stat().st_size > 1_000_000)
    blob.write_bytes(bytes(blob.stat().st_size))
    new_project.doit("forget", "download:unet", source=PLACE)

    printed = new_project.doit("download:unet", source=PLACE)

    assert f"{UNET} was damaged in the Hub's cache, and is fetched again" in printed


def test_offline_works_from_what_was_fetched_before(new_project, hub, tiny, monkeypatch):
    new_project.doit("download:unet", source=PLACE)
    new_project.doit("forget", "download:unet", source=PLACE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}
    printed = new_project.doit("download:text_encoder", status=1, source=PLACE)
    assert "HF_HUB_OFFLINE is set" in printed
    assert hub.requests == []


@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_without_the_hub_its_cache_will_do_for_a_new_store(
    new_project, hub, tiny, monkeypatch, how,
):
    """What is in the cache came by another program."""
    fetched = "".join(f"hf_hub_download('owner/tiny', '{name}');" for name in (
        "unet/config.json", UNET, *(n for n in content() if n.startswith(("tok", "sched")))))
    code = f"from huggingface_hub import hf_hub_download; {fetched}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    if how == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        hub.close()

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}
    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"
    printed = new_project.doit("download:text_encoder", status=1, source=PLACE)
    assert f"{PLACE}@{tiny}, of which only the cache can be reached: no text_encoder" in printed
    assert not (new_project.cache / "hub.json").exists()


def test_a_file_that_comes_short_is_told(new_project, hub, tiny):
    hub.fail("^/[0-9a-f]{64}$", swap=b"short")

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert "sent a file of another size than it promised" in printed


def test_a_cache_of_the_hub_that_cannot_be_written_is_told(
    new_project, hub, tiny, tmp_path, monkeypatch,
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file"))

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert f"{tmp_path / 'file'}" in printed
    assert "put the Hub's cache elsewhere with HF_HUB_CACHE" in printed


# several places


def test_the_first_place_that_has_the_checkpoint_is_taken(new_project, hub, tiny, tmp_path):
    places = f"{tmp_path / 'none'},hub:owner/none,{PLACE},{CHECKPOINT}"

    new_project.doit("download:unet", source=places)

    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"


def test_if_no_place_has_it_each_says_why(new_project, hub, tmp_path):
    printed = new_project.doit("build", status=1, source=f"{tmp_path / 'none'},hub:owner/none")

    assert "no place has the checkpoint:" in printed
    assert f"{tmp_path / 'none'}: there is no such folder" in printed
    assert "hub:owner/none: there is no such repository" in printed


# locks


@pytest.fixture
def recipe(tmp_path):
    """A recipe of the U-Net alone, from a repository or else a folder."""
    path = tmp_path / "mine.toml"
    path.write_text(
        f'family = "sd"\nsource = ["{PLACE}", "copy"]  # or the copy\nsize = 128\n'
        'components = ["unet"]\n'
    )
    return path


def test_lock_writes_what_the_checkpoint_is_and_costs_no_download(
    new_project, hub, tiny, recipe, tmp_path,
):
    printed = new_project.sdbuild("lock", str(recipe))

    assert printed == f"mine.toml: 2 parts locked, {PLACE} at {tiny[:12]}\n"
    lock = tomllib.loads(recipe.read_text())["lock"]
    made = record(new_project, "download:unet")
    assert lock["unet"] == {entry.path: entry.digest for entry in made.tree}
    assert lock["commits"] == {PLACE: tiny}
    assert "# or the copy" in recipe.read_text()
    assert new_project.ran("download", model=recipe) == set()
    assert new_project.why("download:unet", model=recipe)["source"] == (
        f"{PLACE} is at {tiny}, locked")


def test_a_locked_plan_resolves_without_any_place(new_project, hub, tiny, recipe):
    new_project.sdbuild("lock", str(recipe))
    hub.close()
    (new_project.cache / "hub.json").unlink()

    assert new_project.ran("download", model=recipe) == set()


def test_a_locked_part_is_taken_from_any_place_that_has_it(
    new_project, hub, tiny, recipe, tmp_path,
):
    """The copy is of another form: a folder has other files than what is locked."""
    new_project.sdbuild("lock", str(recipe))
    wanted = record(new_project, "download:unet").digest()
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    del hub.repositories["owner/tiny"]
    shutil.rmtree(new_project.cache)
    shutil.rmtree(os.environ["HF_HOME"])

    new_project.doit("download:unet", model=recipe)

    assert record(new_project, "download:unet").digest() == wanted


def other_unet():
    return with_other_weights(lambda found: {UNET: save({n: t * 2 for n, t in found.items()})})


def test_a_place_with_another_checkpoint_is_passed_over(new_project, hub, tiny, recipe, tmp_path):
    """The commit was rewritten under its name, as no Hub does and a bad mirror may."""
    new_project.sdbuild("lock", str(recipe))
    wanted = record(new_project, "download:unet").digest()
    hub.repositories["owner/tiny"].commits[tiny] = other_unet()
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    shutil.rmtree(new_project.cache)
    shutil.rmtree(os.environ["HF_HOME"])

    new_project.doit("download:unet", model=recipe)

    assert record(new_project, "download:unet").digest() == wanted


def test_if_every_place_has_another_the_part_and_both_digests_are_named(
    new_project, hub, tiny, recipe, tmp_path,
):
    new_project.sdbuild("lock", str(recipe))
    lock = tomllib.loads(recipe.read_text())["lock"]
    hub.repositories["owner/tiny"].commits[tiny] = other_unet()
    copy = Path(shutil.copytree(CHECKPOINT, tmp_path / "copy"))
    (copy / UNET).write_bytes(other_unet()[UNET])
    shutil.rmtree(new_project.cache)
    shutil.rmtree(os.environ["HF_HOME"])

    printed = new_project.doit("download:unet", status=1, model=recipe)

    found = re.findall(r"unet: weights.safetensors is ([0-9a-f]{32}), but ([0-9a-f]{32}) is locked",
                       printed)
    assert len(found) == 2
    assert {locked for _, locked in found} == {lock["unet"]["weights.safetensors"]}
    assert "python -m sdbuild lock RECIPE" in printed
    assert not list(Store(new_project.cache).records())


def test_the_lock_of_a_built_in_recipe_is_printed(new_project):
    before = (CHECKPOINT.parent / "tiny-emoji.toml").read_bytes()

    printed = new_project.sdbuild("lock", "tiny-emoji")

    assert set(tomllib.loads(printed)["lock"]) == {
        "text_encoder", "unet", "vae_decoder", "vae_encoder", "resources"}
    assert (CHECKPOINT.parent / "tiny-emoji.toml").read_bytes() == before


def test_a_source_on_the_command_line_is_not_what_lock_is_for(new_project):
    printed = new_project.sdbuild("lock", "tiny-emoji", status=2, source="x")

    assert "a lock is of the recipe's own source" in printed
