"""Steps that run again after a change and steps that do not, by counting."""

import json
import os
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from sdbuild.store import Store

PALETTIZED = {"text_encoder", "unet"}


def test_a_second_build_runs_nothing(project):
    project.doit("build")

    assert project.ran("build") == set()


def test_other_bits_run_palettize_and_after_for_the_palettized_components_only(project):
    assert project.ran("build", "quant=4") == {
        "palettize:text_encoder", "compile:text_encoder",
        "palettize:unet", "chunk:unet", "compile:unet", "bundle",
    }


def test_another_cut_runs_chunk_compile_and_bundle_only(project):
    """The whole palettized U-Net was never compiled here, so it is compiled once."""
    assert project.ran("build", "chunk=1") == {"compile:unet", "bundle"}
    assert project.ran("build", "chunk=2") == set()


def test_cutting_what_was_whole_runs_chunk_compile_and_bundle_only(project):
    assert project.ran("build", "quant=none", "chunk=2") == {"chunk:unet", "compile:unet", "bundle"}


@pytest.mark.slow
def test_another_target_keeps_downloads_and_traces(project):
    project.doit("convert:vae_encoder", "target=iOS17")

    ran = project.ran("convert:vae_encoder", "target=iOS18")

    assert ran == {"lower:vae_encoder", "convert:vae_encoder"}


@pytest.mark.slow
def test_a_bound_package_is_the_directly_converted_one_byte_for_byte(project):
    project.doit("convert", "lower=direct", "components=unet,text_encoder")

    made = {}
    for record in Store(project.cache).records():
        if record.step in ("convert:unet", "convert:text_encoder"):
            way = record.ingredients["params"]["lower"]
            made.setdefault(record.step, {})[way] = record.digest()
    assert len(made) == 2
    assert all(found["once"] == found["direct"] for found in made.values())


def test_another_prompt_or_seed_builds_nothing(project):
    project.doit("build")

    picture = project.folder / "a.png"
    assert project.ran("generate", "prompt=a fox", "seed=9", "steps=1", out=picture) == set()
    assert picture.exists()


def test_one_changed_weight_runs_its_component_from_convert_on_and_no_trace(
    project, own_checkpoint,
):
    path = own_checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.bias"][0] += 1
    save_file(tensors, path)

    ran = project.ran("build", source=own_checkpoint)

    # Both halves lie in one file, so both are looked at; only one has changed.
    assert ran == {"download:vae_decoder", "download:vae_encoder", "convert:vae_decoder",
                   "compile:vae_decoder", "bundle"}


def test_a_checkpoint_that_is_the_same_elsewhere_builds_nothing(project, own_checkpoint):
    for path in own_checkpoint.rglob("*"):
        os.utime(path)

    assert project.ran("build", source=own_checkpoint) == set()


def test_a_config_that_only_says_where_it_was_saved_runs_no_trace(project, own_checkpoint):
    path = own_checkpoint / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_name_or_path": "elsewhere"}))

    assert project.ran("build", source=own_checkpoint) == {"download:unet", "bundle"}


def test_without_doits_database_nothing_runs_again(project):
    project.doit("build")
    for path in project.folder.parent.rglob(".doit*"):
        path.unlink()

    assert project.ran("build") == set()


def record_of(project, step):
    return next(r for r in Store(project.cache).records() if r.step == step)


def test_a_lost_record_runs_its_step_and_nothing_after_it(project):
    Store(project.cache).forget(record_of(project, "convert:vae_decoder").key)

    assert project.ran("build") == {"convert:vae_decoder"}


def test_doit_forget_makes_a_step_run_again(project):
    project.doit("build")

    project.doit("forget", "compile:vae_decoder")

    assert project.ran("build") == {"compile:vae_decoder"}


@pytest.mark.slow
def test_doit_forget_all_makes_every_step_run_again(project):
    project.doit("forget", "-a", "components=vae_encoder")

    ran = project.ran("compile:vae_encoder", "lower=here")
    assert ran == {f"{kind}:vae_encoder"
                   for kind in ("download", "trace", "lower", "convert", "compile")}


def test_a_damaged_bundle_and_store_are_mended_by_the_next_build(own_project):
    """The weights of a bundle are the store's own, so one edit damages both."""
    project = own_project
    project.doit("build")
    path = project.bundle / "VAEDecoder.mlmodelc" / "weights" / "weight.bin"
    wanted = path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    assert path.read_bytes() != wanted

    project.doit("build")

    assert path.read_bytes() == wanted


def test_doit_clean_takes_the_bundle_away_and_the_next_build_lays_it_out_again(project):
    project.doit("build")

    printed = project.doit("clean", "build")
    assert printed.startswith("build - executing 'delete the bundle'\n")
    assert not project.bundle.exists()

    assert project.ran("build") == set()
    assert (project.bundle / "manifest.json").exists()


def test_a_bundle_of_which_a_file_cannot_be_read_is_laid_out_again(project):
    project.doit("build")
    path = project.bundle / "vocab.json"
    path.unlink()
    path.symlink_to(path)  # too many levels of symbolic links, for anybody

    assert project.ran("build") == set()

    assert path.read_text()


def test_a_bundle_that_lost_a_file_is_laid_out_again(project):
    project.doit("build")
    (project.bundle / "vocab.json").unlink()

    project.doit("build")

    assert (project.bundle / "vocab.json").exists()


def test_content_that_was_lost_is_made_again_when_it_is_needed_and_not_before(project):
    store = Store(project.cache)
    record = record_of(project, "convert:vae_encoder")
    for entry in record.tree:
        store.object(entry.digest).unlink()

    assert project.ran("build") == set()
    store.forget(record_of(project, "compile:vae_encoder").key)
    assert "compile:vae_encoder" in project.ran("build")
    assert store.has_content(record)


@pytest.mark.slow
def test_two_fresh_stores_hold_the_same_artifacts(built, tmp_path):
    other = type(built)(tmp_path)
    other.doit("-n", "2", "build")

    found = {r.step: r.digest() for r in Store(other.cache).records()}
    known = {r.key: r.digest() for r in Store(built.cache).records()}
    assert len(found) == 25
    for record in Store(other.cache).records():
        assert known[record.key] == record.digest(), record.step


def test_why_names_the_ingredient_that_changed(project):
    project.doit("build")

    reasons = project.why("build", "quant=4")

    assert reasons["palettize:unet"].startswith("would run: params.nbits 6 → 4 (command line)  [")
    assert reasons["chunk:unet"].startswith(
        "would run: after palettize:unet, params.nbits 6 → 4 (command line)  [")
    assert reasons["convert:unet"] == "up to date"
    assert reasons["build"].startswith("would run")


def test_why_of_an_untouched_build_says_up_to_date(project):
    project.doit("build")

    assert set(project.why("build").values()) == {"up to date"}


def test_why_tells_what_a_kill_left_beside_the_bundle_as_the_next_build_does(project):
    project.doit("build")
    left = project.folder / ".bundle-abcdefgh"
    (left / "old").mkdir(parents=True)

    reasons = project.why("build")

    assert reasons.pop("build") == (
        "would run: installed, but a killed process left .bundle-abcdefgh beside it")
    assert set(reasons.values()) == {"up to date"}
    assert "\n.  build " in "\n" + project.doit("build")
    assert not left.exists()


def test_why_names_the_file_of_the_checkpoint_that_changed(project, own_checkpoint):
    path = own_checkpoint / "tokenizer" / "merges.txt"
    path.write_text(path.read_text() + "zz zz\n")

    reasons = project.why("build", source=own_checkpoint)

    assert reasons["download:resources"].startswith(
        "would run: source tokenizer/merges.txt changed  [")


def test_the_store_can_be_thrown_away_while_the_bundle_stays(project):
    project.doit("build")
    shutil.rmtree(project.cache)

    assert (project.bundle / "manifest.json").read_text()
