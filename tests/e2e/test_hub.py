"""Checkpoints from the Hub, read from one on this machine; what is asked of it is counted."""

import os
from pathlib import Path

import pytest
from hub_server import Hub

from sdbuild.store import Store

CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
UNET = "unet/diffusion_pytorch_model.safetensors"
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


def test_only_the_files_that_a_part_needs_are_fetched_and_the_metadata_once(
    new_project, hub, tiny,
):
    new_project.doit("download:unet", source=PLACE)

    assert hub.paths().count("/api/models/owner/tiny") == 1
    assert files_asked_for(hub) == ["unet/config.json", UNET]


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
