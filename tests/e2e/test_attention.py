"""A layout for the Neural Engine, from the checkpoint to the bundle."""

import json

import pytest

from sdbuild.store import Store

WORDS = ("attention=split_einsum", "quant=none", "chunk=1")


@pytest.fixture(scope="module")
def split(built, tmp_path_factory):
    """A copy of the built store with the bundle of `split_einsum`, and the steps that ran."""
    project = built.copy(tmp_path_factory.mktemp("split"))
    return project, project.ran("build", *WORDS)


def records(project, step):
    return [r for r in Store(project.cache).records() if r.step == step]


@pytest.mark.slow
def test_another_attention_runs_the_steps_of_the_unet_only(split):
    _, ran = split

    assert ran == {"trace:unet", "lower:unet", "convert:unet", "compile:unet", "bundle"}


def test_it_is_near_the_original_at_every_timestep(split, tmp_path):
    project, _ = split
    project.doit("parity:unet", *WORDS)

    (record,) = records(project, "parity:unet")
    file = Store(project.cache).checkout(record, tmp_path / "parity.json", "parity.json")
    samples = json.loads(file.read_text())["samples"]
    assert len(samples) == 4
    assert all(sample["psnr_db"] > 65 for sample in samples)


def test_apps_find_the_attention_in_the_metadata_and_in_the_manifest(split):
    project, _ = split
    found = json.loads((project.bundle / "Unet.mlmodelc" / "metadata.json").read_text())[0]
    manifest = json.loads((project.bundle / "manifest.json").read_text())

    assert "Ios16.einsum" in found["mlProgramOperationTypeHistogram"]
    assert found["userDefinedMetadata"]["attention_implementation"] == "split_einsum"
    assert manifest["attention"] == "split_einsum"


def test_hosts_hand_the_embeddings_over_as_for_the_original(split, built):
    project, _ = split
    schemas = [
        json.loads((folder / "Unet.mlmodelc" / "metadata.json").read_text())[0]["inputSchema"]
        for folder in (project.bundle, built.folder / "fp16")
    ]

    assert schemas[0] == schemas[1]


@pytest.mark.slow
def test_a_bound_package_is_the_directly_converted_one_byte_for_byte(split):
    project, _ = split
    project.doit("convert:unet", "lower=direct", *WORDS)

    made = {
        r.ingredients["params"]["lower"]: r.digest() for r in records(project, "convert:unet")
        if r.ingredients["params"]["attention"] == "split_einsum"
    }
    assert made["once"] == made["direct"]
