"""Images from bundles that others finished: in their layouts, without a manifest of ours."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdbuild.base.errors import BundleError, CheckFailed
from sdbuild.bundle.places import opened
from sdbuild.bundle.request import Request
from sdbuild.cli.commands.report import page_name
from sdbuild.cli.main import main
from sdbuild.reports.check import Judgement
from sdbuild.reports.check_bundle import check_bundle
from sdbuild.runtime.pipeline import Pipeline
from tests.e2e.project import run

REQUEST = Request(prompt="a fox", negative="", seed=3, steps=1, guidance=5, scheduler="ddim",
                  count=1)


@pytest.fixture(scope="module")
def compiled(built, tmp_path_factory):
    """Apple's Resources: compiled models and the tokenizer, flat, and nothing else."""
    folder = tmp_path_factory.mktemp("flat") / "Resources"
    folder.mkdir()
    for path in (built.folder / "fp16").iterdir():
        if path.suffix == ".mlmodelc":
            shutil.copytree(path, folder / path.name)
        elif path.name in ("vocab.json", "merges.txt"):
            shutil.copy(path, folder)
    return folder


def drawn(where, **how):
    with opened(Path(where), **how) as (bundle, notes):
        (result,) = Pipeline(bundle).draw(REQUEST)
    return np.asarray(result.image), "\n".join(notes)


@pytest.fixture(scope="module")
def wanted(built):
    """Returns the image of the bundle with its manifest."""
    return drawn(built.folder / "fp16")[0]


def test_a_folder_of_compiled_models_draws_as_with_its_manifest(compiled, wanted):
    found, notes = drawn(compiled)

    assert (found == wanted).all()
    assert "family=sd, 128x128 pixels and original are inferred" in notes
    assert "scale factor of 0.18215" in notes


def test_apples_packages_draw_with_clips_own_tokenizer(packages, wanted):
    found, notes = drawn(packages)

    assert (found == wanted).all()
    assert "no vocab.json and merges.txt: CLIP's own are used" in notes


@pytest.fixture(scope="module")
def repository(compiled, tmp_path_factory):
    """A repository as Apple publishes them: variants in folders, some of them not for here."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    shutil.copytree(compiled, folder / "split_einsum" / "compiled")
    shutil.copytree(compiled, folder / "original" / "compiled")
    (folder / "README.md").write_text("# tiny\n")
    return folder


def test_of_several_variants_one_is_taken_and_named(repository, wanted):
    found, notes = drawn(repository)
    others, of_others = drawn(repository, variant="split_einsum/compiled")

    assert (found == wanted).all()
    assert "variant=original/compiled is taken" in notes
    assert "128x128 pixels and original are" in notes
    assert (others == wanted).all()
    assert "128x128 pixels and original are" in of_others  # its U-Net has no einsum


def test_a_variant_that_is_not_there_is_refused_with_those_that_are(repository):
    with pytest.raises(BundleError, match="no variant 'palettized'") as refused:
        drawn(repository, variant="palettized")

    assert "original/compiled, split_einsum/compiled" in str(refused.value)


def test_one_variant_of_a_repository_of_the_hub_is_fetched(hub, repository, wanted, tmp_path):
    files = {path.relative_to(repository).as_posix(): path.read_bytes()
             for path in repository.rglob("*") if path.is_file()}
    hub.add("owner/tiny", files)

    printed = run([sys.executable, "-m", "sdbuild", "generate", "hub:owner/tiny",
                   "variant=split_einsum", f"out={tmp_path / 'a.png'}", "prompt=a fox", "seed=3",
                   "steps=1", "guidance=5", "scheduler=ddim"], 0)

    assert "variant=split_einsum/compiled is taken" in printed
    assert (np.asarray(Image.open(tmp_path / "a.png")) == wanted).all()
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.paths()
               if "/resolve/" in path}
    assert fetched
    assert all(path.startswith("split_einsum/compiled/") for path in fetched)


def zipped(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(folder.rglob("*")):
            file.write(source, f"{prefix}{source.relative_to(folder)}")
        file.writestr("__MACOSX/._vocab.json", b"\0")
    return path


@pytest.mark.parametrize("prefix", ["", "tiny_original_compiled/", "a/compiled/"])
def test_a_zip_is_drawn_from_at_any_depth(compiled, wanted, tmp_path, prefix):
    """huggingface/swift-coreml-diffusers, issues 68 and 100: a folder too many in the zip."""
    path = zipped(compiled, tmp_path / "tiny.zip", prefix)

    found, _ = drawn(path)

    assert (found == wanted).all()


@pytest.mark.parametrize("name", ["../Unet.mlmodelc/model.mil", "/Unet.mlmodelc/model.mil",
                                  "a/../../Unet.mlmodelc/model.mil"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"")

    with pytest.raises(BundleError, match="leads out of it"):
        drawn(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>"])
def test_what_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)

    with pytest.raises(BundleError, match="not a zip"):
        drawn(path)


def test_a_folder_without_models_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")

    with pytest.raises(BundleError, match=r"no \.mlmodelc and no \.mlpackage in it"):
        drawn(tmp_path)


def test_a_bundle_without_a_u_net_says_what_it_has(compiled, tmp_path):
    shutil.copytree(compiled / "TextEncoder.mlmodelc", tmp_path / "b" / "TextEncoder.mlmodelc")

    with pytest.raises(BundleError, match="no U-Net, found text_encoder"):
        drawn(tmp_path / "b")


def test_the_command_says_what_it_assumed(compiled, tmp_path):
    printed = run([sys.executable, "-m", "sdbuild", "generate", str(compiled), "prompt=a fox",
                   "steps=1", "prediction_type=v_prediction", f"out={tmp_path / 'a.png'}"], 0)

    assert f"{tmp_path / 'a.png'}\n" in printed
    (said,) = [line for line in printed.splitlines() if "assumed" in line]
    assert "128x128, v_prediction, not distilled (more: sdbuild check)" in said
    assert len(said) <= 80
    assert Image.open(tmp_path / "a.png").text["prompt"] == "a fox"


@pytest.fixture(params=["folder", "zip", "packages", "variant"])
def place(request, compiled, packages, repository, tmp_path):
    """The words that name a bundle, wherever it is."""
    if request.param == "zip":
        return [str(zipped(compiled, tmp_path / "tiny.zip", "tiny/"))]
    return {"folder": [str(compiled)], "packages": [str(packages)],
            "variant": [str(repository), "variant=split_einsum/compiled"]}[request.param]


def test_the_contract_of_a_bundle_anywhere_is_that_of_its_folder(place, compiled, capsys):
    def told(*words):
        status = main(["contract", *words, "--json"])
        found = json.loads(capsys.readouterr().out)
        return status, found["violations"], [host["host"] for host in found["hosts"]
                                             if host["runs"] == "yes"]

    assert told(*place) == told(str(compiled))


def test_the_contract_of_a_repository_of_the_hub(hub, repository):
    hub.add("owner/tiny", {path.relative_to(repository).as_posix(): path.read_bytes()
                           for path in repository.rglob("*") if path.is_file()})

    printed = run([sys.executable, "-m", "sdbuild", "contract", "hub:owner/tiny",
                   "variant=original"], 0)

    assert "variant=original/compiled is taken" in printed
    assert "rules: 0 errors" in printed


def test_the_contract_names_what_is_wrong_in_packages(packages, tmp_path, capsys):
    shutil.copytree(packages, tmp_path / "b")
    shutil.rmtree(next((tmp_path / "b").glob("*_vae_decoder.mlpackage")))

    assert main(["contract", str(tmp_path / "b")]) == 1

    out, err = capsys.readouterr()
    assert "VAEDecoder.mlmodelc" in out
    assert "packages, checked as they are once compiled" in err


def test_check_judges_a_zip_by_itself(compiled, tmp_path, capsys):
    path = zipped(compiled, tmp_path / "tiny.zip", "tiny/")

    assert main(["check", str(path), "steps=1", "prompt=a fox", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    lines = found["report"].splitlines()
    assert found["bundle"] == str(path)
    assert lines[0].startswith("files: ") and lines[0].endswith("4 models read: all intact")
    assert any(line.startswith("contract: ") and ", 0 errors, " in line for line in lines)
    assert "a fox" in lines[-2] and lines[-2].endswith("no fault")
    assert lines[-1].startswith("quality: not judged: no reference")


def test_check_loads_no_model_of_a_damaged_bundle(compiled, tmp_path, capsys):
    shutil.copytree(compiled, tmp_path / "b")
    (tmp_path / "b" / "Unet.mlmodelc" / "weights" / "weight.bin").write_bytes(b"\0" * 64)

    assert main(["check", str(tmp_path / "b")]) == 1

    err = capsys.readouterr().err
    assert "the bundle is damaged" in err
    assert "Unet.mlmodelc" in err and "1 damaged" in err


def test_check_says_why_it_cannot_judge_images(compiled, tmp_path, capsys):
    shutil.copytree(compiled, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "TextEncoder.mlmodelc")

    assert main(["check", str(tmp_path / "b"), "steps=1"]) == 1

    err = capsys.readouterr().err
    assert "hosts cannot use the bundle" in err
    assert "quality: not judged" in err and "no text_encoder" in err


def test_check_fails_where_hosts_cannot_use_the_bundle(compiled, tmp_path):
    """Images are judged as well: who can load it is one question, what it generates another."""
    shutil.copytree(compiled, tmp_path / "b")
    (tmp_path / "b" / "merges.txt").unlink()

    with pytest.raises(CheckFailed, match="hosts cannot use the bundle: 1 rule broken") as failed:
        check_bundle(tmp_path / "b", lambda: Judgement(table="quality: same"))

    assert "merges.txt" in str(failed.value)
    assert "quality: same" in str(failed.value)


def test_a_report_on_a_zip_and_on_packages(packages, compiled, tmp_path, capsys):
    path = zipped(compiled, tmp_path / "tiny.zip", "tiny/")

    assert main(["report", str(path), str(packages), "steps=1", "prompt=a fox", "--losses=0",
                 f"report={tmp_path / 'a.html'}", "--json"]) == 0

    first, second = json.loads(capsys.readouterr().out)["report"]["variants"]
    assert (first["place"], first["verdict"]) == (str(path), "reference")
    assert (second["place"], second["verdict"]) == (str(packages), "same")
    assert second["images"][0]["psnr_db"] is None, "nothing differs"
    assert second["hosts"] == first["hosts"] != []
    assert second["violations"] == first["violations"]


@pytest.mark.parametrize(("place", "name"), [
    ("a/theirs.zip", "theirs"), ("hub:owner/tiny@0123abc", "tiny"), ("b/tiny-2.1", "tiny-2.1"),
])
def test_a_page_is_called_after_what_it_is_on(place, name):
    assert page_name(Path(place)) == name
