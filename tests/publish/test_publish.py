"""Bundles on the Hub and back, through huggingface_hub and the tests' own server."""

import hashlib
import json
import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.e2e.project import ROOT, run

pytestmark = pytest.mark.slow

NAME = "me/coreml-tiny"
FOLDER = "original/128x128/compiled"


@pytest.fixture
def owner(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return hub


def publish(project, *words, status=0):
    return run([sys.executable, "-m", "sdbuild", "publish", NAME, "model=tiny-emoji",
                f"cache={project.cache}", *words], status)


def files(hub, name=NAME):
    repository = hub.repositories[name]
    return repository.commits[repository.branches["main"]]


def sdbuild(*words, status=0):
    return run([sys.executable, "-m", "sdbuild", *map(str, words)], status)


@pytest.mark.parametrize("offers_xet", [False, True])
def test_a_bundle_is_published_where_apps_look_for_it(project, owner, offers_xet, tmp_path):
    owner.offers_xet = offers_xet

    printed = publish(project)

    found = files(owner)
    models = {path.split("/")[3] for path in found if path.startswith(f"{FOLDER}/")}
    assert models == {"TextEncoder.mlmodelc", "UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc",
                      "VAEDecoder.mlmodelc", "VAEEncoder.mlmodelc", "manifest.json", "vocab.json",
                      "merges.txt", "README.md"}
    assert "UnetChunk1.mlmodelc/" in printed
    assert "/commit/" in printed
    card = found["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    for path, content in found.items():
        if path not in ("README.md", ".gitattributes"):
            assert f"{hashlib.sha256(content).hexdigest()} {len(content):>11}  {path}\n" in card
    (tmp_path / "a.zip").write_bytes(found["original/128x128/tiny_original_128x128.zip"])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"tiny_original_128x128"}
        assert archive.read("tiny_original_128x128/vocab.json") == found[f"{FOLDER}/vocab.json"]


def test_a_dry_run_and_a_second_run_write_nothing(project, owner):
    printed = publish(project, "--dry-run")
    assert owner.repositories == {}
    assert {method for method, _, _ in owner.requests} == {"GET"}
    assert "to upload" in printed

    publish(project)
    owner.requests.clear()
    printed = publish(project)

    assert "0 B to upload" in printed
    assert {method for method, _, _ in owner.requests} <= {"GET", "HEAD"}


def test_other_bits_are_another_variant_and_share_what_is_the_same(project, owner):
    publish(project)
    before = dict(files(owner))
    owner.requests.clear()

    publish(project, "quant=8")

    after = files(owner)
    assert {path for path in before if path != "README.md"} <= after.keys()
    assert "original/128x128_8bit/compiled/vocab.json" in after
    uploaded = {path.rpartition("/")[2] for path in owner.paths("PUT")}
    assert hashlib.sha256(after[f"{FOLDER}/VAEDecoder.mlmodelc/weights/weight.bin"]).hexdigest() \
        not in uploaded
    printed = sdbuild("pull", f"hub:{NAME}", status=2)
    assert "variant=NAME, one of: original/128x128/compiled, original/128x128_8bit/compiled" \
        in printed


def test_a_dry_run_without_a_network_shows_what_a_new_repository_would_get(
        project, owner, monkeypatch):
    asked = publish(project, "--dry-run")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens

    alone = publish(project, "--dry-run")
    refused = publish(project, status=1)

    assert "the Hub cannot be reached" in alone and "shown as for a new repository" in alone
    assert alone[alone.index(f"\n{NAME}\n"):] == asked[asked.index(f"\n{NAME}\n"):]
    assert "the Hub cannot be reached" in refused and "to upload" not in refused


def test_a_matrix_is_published_variant_by_variant(project, owner):
    printed = publish(project, "--matrix", "quant=6", "--dry-run")

    assert "== 1/1 tiny-emoji" in printed
    assert f"{FOLDER}/vocab.json" in printed


def test_a_dry_run_of_a_matrix_shows_the_folders_that_its_variants_are_published_in(project, owner):
    words = ("--matrix", "quant=6,none", "chunk=1", "--json")

    def folders(*more):
        printed, _ = json.JSONDecoder().raw_decode(publish(project, *words, *more))
        return [each["output"]["folder"] for each in printed["variants"]]

    shown = folders("--dry-run")

    assert shown == folders()
    assert len(set(shown)) == 2
    assert folders("--dry-run") == shown  # also where they are published already


def test_an_upload_that_was_cut_goes_on_and_nothing_is_sent_twice(project, owner):
    owner.fail("/upload/", status=507, times=1 << 20)  # as it is, huggingface_hub does not wait
    publish(project, status=1)
    assert list(files(owner)) == [".gitattributes"]
    owner.faults.clear()
    owner.fail("/commit/", status=507, times=1 << 20)
    publish(project, status=1)
    owner.faults.clear()
    sent = owner.paths("PUT")
    owner.requests.clear()

    publish(project)

    assert owner.paths("PUT") == []
    assert sent
    assert f"{FOLDER}/vocab.json" in files(owner)


def test_what_others_put_there_is_never_deleted(project, owner):
    publish(project)
    own = files(owner) | {"notes.txt": b"mine", f"{FOLDER}/mine.bin": b"mine"}
    gone = f"{FOLDER}/UnetChunk2.mlmodelc/model.mil"
    owner.commit(NAME, own)

    publish(project, "chunk=1")

    after = files(owner)
    assert after["notes.txt"] == after[f"{FOLDER}/mine.bin"] == b"mine"
    assert gone not in after
    assert f"{FOLDER}/Unet.mlmodelc/model.mil" in after


def test_without_a_token_that_may_write_it_says_so(project, hub):
    printed = publish(project, status=1)

    assert f"hub:{NAME}: the Hub does not let you write there" in printed
    assert "a token that may write" in printed


def test_a_card_that_the_hub_refuses_is_not_published(project, owner):
    printed = publish(project, "licence=nonsense", status=1)

    assert "warning: the Hub takes no licence of the name nonsense" in printed
    assert f"hub:{NAME}: the Hub refuses the model card, for its license" in printed
    assert files(owner).keys() <= {".gitattributes"}


def test_without_a_licence_nothing_is_published(project, owner, own_checkpoint_without_card):
    printed = sdbuild("publish", NAME, "model=tiny-emoji", f"source={own_checkpoint_without_card}",
                      f"cache={project.cache}", status=2)

    assert "names no licence" in printed
    assert owner.requests == []
    printed = sdbuild("publish", NAME, "model=tiny-emoji", f"source={own_checkpoint_without_card}",
                      f"cache={project.cache}", "licence=cc-by-nd-4.0", status=2)
    assert "forbids sharing" in printed


@pytest.fixture
def own_checkpoint_without_card(tmp_path):
    from tests.e2e.hub_checkpoints import CHECKPOINT

    made = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    (made / "README.md").unlink()
    return made


def test_a_variant_comes_into_an_empty_machine_and_draws(project, owner, built, tmp_path):
    publish(project)

    sdbuild("pull", f"hub:{NAME}", f"variant={FOLDER}", f"bundle={tmp_path / 'pulled'}")

    words = ("prompt=a fox", "seed=3", "steps=1", "guidance=5", "scheduler=ddim")
    for bundle in (tmp_path / "pulled", built.bundle):
        sdbuild("generate", bundle, *words, f"out={tmp_path / bundle.name}.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("pulled", "bundle"))
    assert (one == other).all()


def test_a_published_bundle_is_built_again_and_is_the_same(project, owner):
    publish(project)

    printed = sdbuild("reproduce", f"hub:{NAME}", f"cache={project.cache}")

    assert "30 files the same, 0 different" in printed


def test_a_bundle_of_a_bit_recipe_is_published_from_here_and_built_again(project, owner, tmp_path):
    bits = tmp_path / "bits.json"
    bits.write_text('{"schema": 1, "components": {"unet": {"*": 4}}}', "utf-8")

    publish(project, f"bits={os.path.relpath(bits, ROOT)}")

    card = files(owner)["README.md"].decode()
    assert f"<!-- sdbuild variant {FOLDER} bits -->" in card
    assert '\nbits = "bits.json"\n' in card
    printed = sdbuild("reproduce", f"hub:{NAME}", f"cache={project.cache}", f"bits={bits}")
    assert "30 files the same, 0 different" in printed


@pytest.mark.parametrize("lies_in_lfs", [True, False])
def test_a_byte_that_was_changed_on_the_server_is_found(project, owner, tmp_path, lies_in_lfs):
    publish(project)
    path = f"{FOLDER}/" + ("UnetChunk1.mlmodelc/weights/weight.bin" if lies_in_lfs
                           else "VAEDecoder.mlmodelc/model.mil")
    content = bytearray(files(owner)[path])
    content[-100] ^= 1
    owner.commit(NAME, files(owner) | {path: bytes(content)})

    printed = sdbuild("pull", f"hub:{NAME}", f"bundle={tmp_path / 'pulled'}", status=1)
    assert f"{path} has the SHA-256" in printed
    assert not (tmp_path / "pulled").exists()

    printed = sdbuild("reproduce", f"hub:{NAME}", f"cache={project.cache}", status=1)
    assert f"{path}  is not the file of the card, on the server" in printed


def test_what_is_published_of_other_ingredients_names_them(project, owner):
    """The card's recipe asks for other bits than the files have."""
    publish(project)
    card = files(owner)["README.md"].decode().replace("\nquant = 6\n", "\nquant = 8\n")
    owner.commit(NAME, files(owner) | {"README.md": card.encode()})

    printed = sdbuild("reproduce", f"hub:{NAME}", f"cache={project.cache}", "--json", status=1)

    found, _ = json.JSONDecoder().raw_decode(printed[printed.index('{\n  "schema"'):])
    assert not found["is_same"]
    assert "palettize:unet: params nbits is another" in found["why"]


def test_a_relinked_component_is_all_that_a_device_fetches_again(built, project, tmp_path):
    shutil.copytree(built.bundle, tmp_path / "old")
    shutil.copytree(built.bundle, tmp_path / "new")
    project.sdbuild("build", "compile:text_encoder", "quant=8", model="tiny-emoji")
    project.sdbuild("relink", str(tmp_path / "new"), "text_encoder", "quant=8", bundle=None,
                    model="tiny-emoji")

    found = json.loads(sdbuild("diff", tmp_path / "old", tmp_path / "new", "--json"))

    changed = {each["name"] for each in found["components"] if each["files"]}
    assert changed == {"text_encoder", "other files"}
    (other,) = (each for each in found["components"] if each["name"] == "other files")
    assert other["files"] == ["manifest.json"]
    new = tmp_path / "new"
    assert found["bytes"] == sum(
        (new / path).stat().st_size for each in found["components"] for path in each["files"])
