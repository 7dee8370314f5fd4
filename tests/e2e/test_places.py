"""Several places for one checkpoint, and locks that say which it is."""

import hashlib
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from safetensors.numpy import save

from sdbuild.store import Store
from tests.e2e.hub_checkpoints import CHECKPOINT, PLACE, UNET, record, with_other_weights

# several places


def test_the_first_place_that_has_the_checkpoint_is_taken(new_project, hub, tiny, tmp_path):
    places = f"{tmp_path / 'none'},hub:owner/none,{PLACE},{CHECKPOINT}"

    new_project.doit("download:unet", source=places)

    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"


def test_if_no_place_has_it_each_says_why(new_project, hub, tmp_path):
    printed = new_project.doit("build", status=1, source=f"{tmp_path / 'none'},hub:owner/none")

    assert "the checkpoint was not found:" in printed
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
    store = Store(new_project.cache)
    assert lock["unet"] == {
        entry.path: hashlib.sha256(store.file(made, entry.path).read_bytes()).hexdigest()
        for entry in made.tree
    }
    assert lock["commits"] == {PLACE: tiny}
    assert "# or the copy" in recipe.read_text()
    assert new_project.ran("download", model=recipe) == set()
    assert new_project.why("download:unet", model=recipe)["source"] == (
        f"{PLACE} is at {tiny}, locked")


def test_a_lock_that_is_replaced_says_what_changed(new_project, own_checkpoint, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'family = "sd"\nsource = "{own_checkpoint}"\nsize = 128\n'
                    'components = ["unet", "vae_decoder"]\n')
    first = new_project.sdbuild("lock", str(path))
    assert new_project.sdbuild("lock", str(path)) == first.replace("\n", ", nothing changed\n")

    file = own_checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    assert new_project.sdbuild("lock", str(path)) == first.replace("\n", ", unet changed\n")
    fewer = new_project.sdbuild("lock", str(path), "components=unet")
    assert fewer == "mine.toml: 2 parts locked, vae_decoder is gone\n"


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

    found = re.findall(r"unet: weights.safetensors is ([0-9a-f]{64}), but ([0-9a-f]{64}) is locked",
                       printed)
    assert len(found) == 2
    assert {locked for _, locked in found} == {lock["unet"]["weights.safetensors"]}
    assert "sdbuild lock RECIPE" in printed
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
