"""Finished packages as a source: compressed, cut and compiled again without a checkpoint."""

import json
import re
import shutil
import tempfile
import zipfile
from functools import partial

import pytest

from sdbuild.base.digest import sha256_file
from sdbuild.base.errors import RecipeError, SourceError, StepError
from sdbuild.base.zips import Zip
from sdbuild.checkpoints import open_checkpoint
from sdbuild.cli.main import main
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.files.package import read_package
from sdbuild.mil.inspect.diff import differences
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from sdbuild.store.scan import files
from tests.e2e.conftest import MODEL
from tests.inprocess import Steps

COMPONENTS = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]


def of(source, **words):
    return load({"source": str(source), "compiler": "portable"} | words)


def same_files(one, other):
    """Whether two folders hold the same files."""
    paths = [path.relative_to(one) for path in files(one)]
    assert paths == [path.relative_to(other) for path in files(other)]
    return all((one / path).read_bytes() == (other / path).read_bytes() for path in paths)


@pytest.fixture(scope="module")
def made(packages, tmp_path_factory):
    """Returns a bundle built from the packages, with 6 bits and in two chunks as the original
    one."""
    recipe = of(packages, quant="6", chunk="2")
    return Steps(recipe, tmp_path_factory.mktemp("made"))


def test_nothing_is_traced_or_lowered(made):
    kinds = {step.kind for step in made.plan.steps.values()}

    assert kinds == {"download", "convert", "palettize", "chunk", "compile", "parity", "bundle",
                     "originals", "pictures"}


def test_the_recipe_is_what_the_packages_are(packages):
    recipe = of(packages)

    assert [c.name for c in recipe.components] == COMPONENTS
    assert (recipe.network.width_px, recipe.network.height_px, recipe.network.batch) == (128, 128,
                                                                                         2)
    assert (recipe.network.attention, recipe.packaging.target) == ("original", "iOS16")
    assert re.match("finished packages, with lower=packages, components=text_encoder,unet",
                    recipe.found)


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae_decoder"])
def test_they_become_what_the_checkpoint_becomes(made, built, component):
    for model in made[f"compile:{component}"].iterdir():
        assert same_files(model, built.bundle / model.name)


def test_the_manifest_says_where_parts_came_from(made):
    manifest = json.loads((made["bundle"] / "manifest.json").read_text())

    assert (manifest["family"], manifest["scale_factor"]) == ("sd", 0.18215)
    assert manifest["prediction_type"] == "epsilon"
    assert {name: entry["nbits"] for name, entry in manifest["components"].items()} == {
        "text_encoder": 6, "unet": 6, "vae_decoder": None, "vae_encoder": None}


def test_a_component_is_measured_against_the_package_that_it_was(made, packages, tmp_path):
    """6 bits differ from the package about as they do from the checkpoint; a copy does not."""
    def worst(steps):
        found = json.loads((steps["parity:text_encoder"] / "parity.json").read_text())
        return min(each["psnr_db"] or 200 for each in found["samples"])

    assert 25 < worst(made) < 60
    assert worst(Steps(of(packages), tmp_path)) == 200


def test_compiled_models_are_a_source_too(built, made, tmp_path):
    folder = tmp_path / "tiny" / "original" / "compiled"
    shutil.copytree(built.folder / "fp16", folder)
    (folder / "manifest.json").unlink()

    steps = Steps(of(tmp_path / "tiny"), tmp_path)

    packages = [each["convert:unet"] / "Unet.mlpackage" for each in (steps, made)]
    assert [row.name for row in differences(*map(read_package, packages))] == [
        "attribute buildInfo"], "but for who wrote it"
    assert (steps["download:resources"] / "merges.txt").read_bytes() == (
        folder / "merges.txt").read_bytes()


def test_of_a_repository_only_what_is_needed_is_fetched(hub, packages, made, project):
    content = {}
    for path in files(packages):
        name = path.relative_to(packages).as_posix()
        content[f"original/packages/{name}"] = path.read_bytes()
        content[f"split_einsum/packages/{name}"] = path.read_bytes()
    commit = hub.add("owner/tiny", content)

    ran = project.ran("convert:unet", source="hub:owner/tiny", model=None,
                      attention="split_einsum", components="unet")

    assert ran == {"download:unet", "convert:unet"}
    records = {record.step: record for record in Store(project.cache).records()
               if record.facts.get("place")}
    assert records["download:unet"].facts["place"] == f"hub:owner/tiny@{commit}"
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.paths()
               if "/resolve/" in path}
    assert fetched
    assert all(path.startswith("split_einsum/packages/") for path in fetched)


def test_the_same_package_in_another_place_has_the_same_identity(packages, tmp_path):
    """So that it is copied once, however the variants of a repository lie."""
    other = tmp_path / "a" / "original" / "packages" / "Unet.mlpackage"
    shutil.copytree(packages / f"{MODEL}_unet.mlpackage", other)

    one, two = (open_checkpoint([str(place)], {}) for place in (packages, tmp_path / "a"))

    digests = [place.identity("original/unet", lambda path: path.read_bytes().hex())
               for place in (one, two)]
    assert digests[0] == digests[1]


@pytest.fixture(scope="module")
def archive(packages, tmp_path_factory):
    """The packages in a zip, as they are published: in a folder that is called after them."""
    path = tmp_path_factory.mktemp("zip") / "tiny_original_packages.zip"
    with zipfile.ZipFile(path, "w") as file:
        for source in files(packages):
            file.write(source, f"tiny/{source.relative_to(packages)}")
    return path


def test_a_zip_of_packages_is_a_source_and_what_is_made_is_the_same(
        archive, packages, made, tmp_path):
    steps = Steps(of(archive), tmp_path)

    assert same_files(steps["convert:text_encoder"], made["convert:text_encoder"])


def test_the_digests_of_a_zip_are_those_of_its_files_and_are_read_once(
        archive, packages, monkeypatch):
    facts = {}

    def told(place):
        return open_checkpoint([str(place)], facts).identity(
            "original/unet", lambda path: f"sha256:{sha256_file(path)}")

    first = told(archive)
    monkeypatch.delattr(Zip, "sha256")
    assert told(archive) == first == told(packages)


def test_a_zip_of_anything_else_is_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "checkpoint.zip", "w") as file:
        file.writestr("unet/config.json", "{}")

    with pytest.raises(SourceError, match="no finished models in it") as refused:
        of(tmp_path / "checkpoint.zip")

    assert "unzip a checkpoint" in refused.value.hint


@pytest.mark.parametrize(("words", "problem"), [
    ({"lora": "ink.safetensors"}, "lora: it changes what is converted"),
    ({"vae": "other"}, "vae: it changes what is converted"),
    ({"unet": "other"}, "unet: it changes what is converted"),
    ({"controlnet": "canny"}, "controlnet: it changes what is converted"),
    ({"size": "64,128"}, "size: several, and each of the finished packages"),
    ({"distilled_guidance": "8"}, "distilled_guidance: it changes what is converted"),
    ({"clip_skip": "2"}, "clip_skip: it changes what is converted"),
    ({"prediction_type": "v_prediction"}, "cannot be turned to predict noise"),
])
def test_what_only_holds_for_a_checkpoint_is_refused(packages, words, problem):
    with pytest.raises(RecipeError, match=problem):
        of(packages, **words)


@pytest.mark.parametrize(("words", "problem"), [
    ({"size": "256"}, "sample is 2×4×16×16, expected 2×4×32×32"),
    ({"batch": "1"}, "sample is 2×4×16×16, expected 1×4×16×16"),
])
def test_a_size_that_they_do_not_have_is_refused(packages, tmp_path, words, problem):
    with pytest.raises(StepError, match=problem):
        Steps(of(packages, **words), tmp_path)["convert:unet"]


def test_a_package_of_another_component_is_refused(packages, tmp_path):
    shutil.copytree(packages, tmp_path / "mixed")
    for name in ("vae_decoder", "vae_encoder"):
        shutil.rmtree(tmp_path / "mixed" / f"{MODEL}_{name}.mlpackage")
    shutil.copytree(packages / f"{MODEL}_vae_decoder.mlpackage",
                    tmp_path / "mixed" / f"{MODEL}_vae_encoder.mlpackage")

    with pytest.raises(StepError, match="vae_encoder: inputs z, expected x"):
        Steps(of(tmp_path / "mixed"), tmp_path)["convert:vae_encoder"]


@pytest.fixture
def palettized(made, tmp_path):
    """Packages whose U-Net and text encoder have 6 bits already."""
    for name in COMPONENTS:
        step = f"palettize:{name}" if f"palettize:{name}" in made.plan.steps else f"convert:{name}"
        (package,) = made[step].iterdir()
        shutil.copytree(package, tmp_path / "six" / package.name)
    return tmp_path / "six"


def test_palettes_are_passed_on_and_named(palettized, made, tmp_path):
    recipe = of(palettized, chunk="2")

    assert (recipe.packaging.nbits, recipe.packaging.palettized) == (6, {"text_encoder", "unet"})
    assert "6bit" in recipe.variant
    assert same_files(Steps(recipe, tmp_path)["compile:unet"], made["compile:unet"])


def test_palettes_are_not_palettized_again(palettized, tmp_path):
    with pytest.raises(RecipeError, match="quant=4: its weights have palettes of 6 bits already"):
        of(palettized, quant="4")
    with pytest.raises(RecipeError, match="quant=none: its weights have palettes of 6 bits"):
        of(palettized, quant="none")


@pytest.mark.parametrize("words", [{}, {"components": "text_encoder,unet"}, {"palettize": "unet"}])
def test_palettes_are_not_palettized_again_where_a_recipe_is_named_either(palettized, words):
    """Nor after eleven steps, but before the first."""
    named = {"model": "tiny-emoji", "lower": "packages"} | words

    with pytest.raises(RecipeError, match="quant=4: its weights have palettes of 6 bits already"):
        of(palettized, quant="4", **named)
    assert of(palettized, components="vae_decoder", quant="4", model="tiny-emoji",
              lower="packages").packaging.nbits == 4, "which has none"


def test_packages_are_found_in_a_project_with_a_recipe_of_its_own(
        packages, palettized, archive, tmp_path, monkeypatch):
    assert main(["init", str(tmp_path / "mine")]) == 0
    monkeypatch.chdir(tmp_path / "mine")

    for place in (packages, archive):
        assert of(place, quant="4").is_of_packages
    assert of(packages, attention="original", chunk="2").packaging.chunks == 2
    with pytest.raises(RecipeError, match="quant=4: its weights have palettes of 6 bits already"):
        of(palettized, quant="4")


def test_what_no_recipe_can_say_is_left_as_it_is(packages, tmp_path):
    shutil.copytree(packages, tmp_path / "int8")
    shutil.rmtree(tmp_path / "int8" / f"{MODEL}_unet.mlpackage")
    quantize(packages / f"{MODEL}_unet.mlpackage", tmp_path / "int8" / "Unet.mlpackage")

    with pytest.raises(RecipeError, match="compressed already, with constexpr_affine_dequantize"):
        of(tmp_path / "int8")


def test_a_u_net_in_chunks_alone_is_no_source(built, tmp_path):
    shutil.copytree(built.bundle, tmp_path / "chunks")

    with pytest.raises(SourceError, match=r"UnetChunk1\.mlmodelc is a chunk, expected all of unet"):
        of(tmp_path / "chunks")


def test_a_layout_that_is_not_there_is_refused_with_those_that_are(packages, tmp_path):
    shutil.copytree(packages, tmp_path / "original" / "packages")

    with pytest.raises(SourceError, match="no model of unet with attention=split_einsum") as found:
        of(tmp_path, attention="split_einsum")
    assert "called after original" in found.value.hint


def test_a_single_package_is_refused_with_its_folder(packages):
    with pytest.raises(SourceError, match="a single model, expected the folder") as refused:
        of(packages / f"{MODEL}_unet.mlpackage")

    assert refused.value.hint == f"source={packages}"


@pytest.mark.parametrize("content, what", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    (b"<!DOCTYPE html>", "a web page"), (b"", "an empty file"), (b"\0" * 2000, "zeros")])
@pytest.mark.parametrize("file", ["model.mlmodel", "weights/weight.bin"])
def test_a_file_that_did_not_come_is_told_from_a_broken_model(
    packages, tmp_path, content, what, file,
):
    """apple/coreml-* cloned without Git LFS, or saved from the page of a file."""
    shutil.copytree(packages, tmp_path / "cut")
    (folder,) = (tmp_path / "cut").glob("*_unet.mlpackage/Data/com.apple.CoreML")
    (folder / file).write_bytes(content)

    with pytest.raises(SourceError, match=f"_unet.mlpackage: .*{what}.*expected a model") as found:
        Steps(of(tmp_path / "cut", components="unet"), tmp_path)["download:unet"]

    assert tempfile.gettempdir() not in str(found.value).replace(str(tmp_path), "")


def test_a_recipe_of_a_checkpoint_says_what_packages_are(packages):
    recipe = load({"model": "tiny-emoji", "source": str(packages)})
    source = open_checkpoint(recipe.sources.checkpoint.places, {})

    for told in (source.config, partial(source.identity, digest_of=sha256_file)):
        with pytest.raises(SourceError, match="expected a checkpoint to convert unet") as refused:
            told("unet")
        assert "lower=packages" in refused.value.hint


def test_a_component_that_is_not_there_is_refused_with_those_that_are(packages):
    with pytest.raises(SourceError) as refused:
        open_checkpoint([str(packages)], {}).model("original/safety_checker")

    assert refused.value.message.partition(": ")[2] == (
        f"no model of safety_checker; there are: {', '.join(COMPONENTS)}")
    assert refused.value.hint == "components= leaves out what is not there"


def test_packages_in_a_recipe_of_their_own(packages, tmp_path):
    (tmp_path / "mine.toml").write_text(
        f'family = "sd"\nsource = "{packages}"\nlower = "packages"\nsize = 128\n'
        'components = ["unet"]\nquant = 4\n')

    recipe = load({"model": str(tmp_path / "mine.toml")})

    assert [name for name in Steps(recipe, tmp_path).plan.steps if name.endswith(":unet")] == [
        "download:unet", "convert:unet", "palettize:unet", "compile:unet", "parity:unet"]


def test_packages_are_asked_for_where_there_is_a_checkpoint(checkpoint, project):
    printed = project.sdbuild("build", "convert:unet", "lower=packages", source=checkpoint,
                              status=1)

    assert "a checkpoint, expected finished models in packages" in printed
