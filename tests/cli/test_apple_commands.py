"""The command lines of Apple's package, run: the files that guides name, and none that is stale."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdbuild.mil.files.package import read_package
from sdbuild.mil.inspect.summary import weights
from sdbuild.recipe.project import BUILT_IN
from tests.e2e.hub_checkpoints import CHECKPOINT, content
from tests.e2e.project import run
from tests.tiny_checkpoints import write_checkpoint

pytestmark = pytest.mark.slow

MODEL = "Stable_Diffusion_version_MODEL_diffusers"
PARTS = ["--convert-unet", "--convert-text-encoder", "--convert-vae-decoder"]
ALL = [*PARTS, "--convert-vae-encoder", "--model-version", "MODEL_diffusers",
       "--attention-implementation", "ORIGINAL", "-o", "out"]
"""`original` and the checkpoint of the shared store, so that nothing is lowered anew."""


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """A folder with a checkpoint, and the store that has its steps."""
    monkeypatch.setenv("SDBUILD_CACHE", str(project.cache))
    (tmp_path / "MODEL_diffusers").symlink_to(CHECKPOINT)
    monkeypatch.setenv("PWD", str(tmp_path))
    return tmp_path


def sdbuild(here, *words, status=0):
    """Runs a command in the folder; what it printed."""
    script = f"import os; os.chdir({str(here)!r})\nfrom sdbuild.cli.main import main\n" \
             f"raise SystemExit(main({list(words)!r}))"
    return run([sys.executable, "-c", script], status)


def torch2coreml(here, *flags, status=0):
    return sdbuild(here, "torch2coreml", *flags, status=status)


def parts(folder):
    """The parts that a folder has packages of."""
    return {path.name.removeprefix(f"{MODEL}_").removesuffix(".mlpackage")
            for path in folder.iterdir() if path.suffix == ".mlpackage"}


def bits(folder, part):
    """The bits of the weights of a part that have few."""
    model = read_package(folder / f"{MODEL}_{part}.mlpackage")
    return {weight.bits for weight in weights(model)} - {16, 32}


def steps_of(printed):
    return {line.split()[1] for line in printed.splitlines() if line.startswith(".  ")}


def test_a_guide_gives_the_files_that_it_names(here):
    printed = torch2coreml(here, *ALL, "--bundle-resources-for-swift-cli", "--chunk-unet",
                           "--quantize-nbits", "6", "--compute-unit", "CPU_AND_GPU")

    out = here / "out"
    assert parts(out) == {"text_encoder", "vae_decoder", "vae_encoder", "unet", "unet_chunk1",
                          "unet_chunk2"}
    assert {path.name for path in (out / "Resources").iterdir()} == {
        "TextEncoder.mlmodelc", "Unet.mlmodelc", "UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc",
        "VAEDecoder.mlmodelc", "VAEEncoder.mlmodelc", "vocab.json", "merges.txt"}
    assert [bits(out, part) for part in ("text_encoder", "unet", "unet_chunk1", "unet_chunk2")] \
        == [{6}] * 4
    assert bits(out, "vae_decoder") == set()
    assert {'attention = "original"', "quant = 6", "chunk = 2"} <= set(printed.splitlines())
    assert steps_of(printed) == set()


def test_the_same_command_again_writes_nothing(here):
    flags = (*ALL, "--bundle-resources-for-swift-cli", "--chunk-unet", "--quantize-nbits", "6")
    torch2coreml(here, *flags)
    before = {path: path.stat().st_ino for path in (here / "out").rglob("*") if path.is_file()
              and not path.name.startswith(".")}

    printed = torch2coreml(here, *flags)

    assert "up to date" in printed
    assert {path: path.stat().st_ino for path in (here / "out").rglob("*") if path.is_file()
            and not path.name.startswith(".")} == before


def test_other_bits_replace_what_is_there_and_leave_no_chunks_of_before(here):
    """apple/ml-stable-diffusion skips what is there, and Swift hosts run chunks in place of a
    whole U-Net, so the one of before would be run."""
    flags = (*ALL, "--bundle-resources-for-swift-cli")
    torch2coreml(here, *flags, "--chunk-unet", "--quantize-nbits", "6")

    printed = torch2coreml(here, *flags)

    out = here / "out"
    assert "unet_chunk1.mlpackage: removed, it was cut from another U-Net" in printed
    assert parts(out) == {"text_encoder", "vae_decoder", "vae_encoder", "unet"}
    assert bits(out, "unet") == set()
    assert {path.name for path in (out / "Resources").iterdir() if "Unet" in path.name} \
        == {"Unet.mlmodelc"}


def test_parts_may_be_converted_one_after_another_into_one_folder(here):
    """Apple's README, for Macs of 8 GB; the last command bundles what all of them left."""
    base = ["--model-version", "MODEL_diffusers", "--attention-implementation", "ORIGINAL",
            "-o", "out"]
    printed = [torch2coreml(here, part, *base) for part in PARTS]

    assert "# the same as a recipe; a bundle needs text_encoder, vae_decoder too" in printed[0]
    torch2coreml(here, "--convert-vae-encoder", *base, "--bundle-resources-for-swift-cli")

    names = {path.name for path in (here / "out" / "Resources").iterdir()}
    assert names == {"TextEncoder.mlmodelc", "Unet.mlmodelc", "VAEDecoder.mlmodelc",
                     "VAEEncoder.mlmodelc", "vocab.json", "merges.txt"}


def test_controlnets_alone_are_bundled_where_no_checkpoint_can_be_read(here, hub):
    """apple/ml-stable-diffusion, issue 158. The Hub that `hub` is has no repository."""
    (here / "control_v11p-sd15-canny").symlink_to(BUILT_IN / "tiny-emoji-control")

    torch2coreml(here, "--convert-controlnet", "control_v11p-sd15-canny", "--latent-h", "16",
                 "--latent-w", "16", "--attention-implementation", "ORIGINAL", "-o", "nets",
                 "--bundle-resources-for-swift-cli")

    assert (here / "nets" / "ControlNet_control_v11p-sd15-canny.mlpackage").is_dir()
    assert {path.name for path in (here / "nets" / "Resources").iterdir()} \
        == {"controlnet", "vocab.json", "merges.txt"}
    assert [path.name for path in (here / "nets" / "Resources" / "controlnet").iterdir()] \
        == ["ControlV11PSd15Canny.mlmodelc"]
    assert hub.requests == []


def test_stable_diffusion_3_has_its_transformer_t5_and_the_tokenizer_of_both(here):
    """apple/ml-stable-diffusion, issue 375, whose flags name no layout of attention."""
    write_checkpoint(here / "sd3", "sd3")

    printed = torch2coreml(here, "--convert-mmdit", "--include-t5", "--sd3-version",
                           "--model-version", "sd3", "-o", "out",
                           "--bundle-resources-for-swift-cli")

    assert 'attention = "original"' in printed
    assert {path.name for path in (here / "out" / "Resources").iterdir()} == {
        "MultiModalDiffusionTransformer.mlmodelc", "TextEncoderT5.mlmodelc", "vocab.json",
        "merges.txt", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (here / "out").glob("*.mlpackage")} == {
        "Stable_Diffusion_version_sd3_mmdit.mlpackage",
        "Stable_Diffusion_version_sd3_text_encoder_t5.mlpackage"}


@pytest.fixture
def foreign(built, here):
    """A package that some other program converted, under the name of the default model."""
    out = here / "out"
    out.mkdir()
    sdbuild(here, "export", "convert:unet", str(out / "Unet.mlpackage"), "model=tiny-emoji",
            "quant=none", "chunk=1")
    name = "Stable_Diffusion_version_CompVis_stable-diffusion-v1-4_unet.mlpackage"
    return (out / "Unet.mlpackage").rename(out / name)


def test_a_package_that_is_there_is_only_cut(here, foreign):
    """Apple's README: `--convert-unet --chunk-unet -o DIR`, without a checkpoint or a network."""
    before = {path: path.stat().st_ino for path in foreign.rglob("*")}

    printed = torch2coreml(here, "--convert-unet", "--chunk-unet", "-o", "out",
                           "--bundle-resources-for-swift-cli")

    assert "--convert-unet: the package that is there is used; sdbuild did not make it" in printed
    assert "the same as a recipe" not in printed
    stem = foreign.name.removesuffix(".mlpackage")
    assert {path.name for path in (here / "out").glob("*.mlpackage")} == {
        foreign.name, f"{stem}_chunk1.mlpackage", f"{stem}_chunk2.mlpackage"}
    assert {path: path.stat().st_ino for path in foreign.rglob("*")} == before
    assert (here / "out" / "Resources" / "UnetChunk2.mlmodelc").is_dir()
    assert "CLIP's own tokenizer, as no checkpoint was read" in printed


def test_a_package_that_is_there_is_bundled_with_the_tokenizer_of_its_checkpoint(here, foreign):
    checkpoint = Path(shutil.copytree(CHECKPOINT, here / "own"))
    vocabulary = checkpoint / "tokenizer" / "vocab.json"
    vocabulary.write_text(vocabulary.read_text().replace('"red</w>"', '"Red</w>"'))
    foreign.rename(foreign.parent / "Stable_Diffusion_version_own_unet.mlpackage")

    torch2coreml(here, "--convert-unet", "--model-version", "own", "-o", "out",
                 "--attention-implementation", "ORIGINAL", "--bundle-resources-for-swift-cli")

    assert (here / "out" / "Resources" / "vocab.json").read_bytes() == vocabulary.read_bytes()


def test_an_autoencoder_that_is_there_is_refused_if_flags_ask_for_another_size(here):
    name = "Stable_Diffusion_version_CompVis_stable-diffusion-v1-4_{}.mlpackage"
    for part, model in (("vae_encoder", "VAEEncoder"), ("vae_decoder", "VAEDecoder")):
        sdbuild(here, "export", f"convert:{part}", str(here / "out" / f"{model}.mlpackage"),
                "model=tiny-emoji")
        (here / "out" / f"{model}.mlpackage").rename(here / "out" / name.format(part))

        printed = torch2coreml(here, f"--convert-{part.replace('_', '-')}", "-o", "out",
                               "--latent-w", "24", status=2)

        assert "--latent-w asks for 24, and it has 16" in printed


@pytest.mark.parametrize(("flags", "said"), [
    (["--attention-implementation", "SPLIT_EINSUM"], "asks for split attention"),
    (["--latent-h", "64"], "--latent-h asks for 64, and it has 16"),
    (["--unet-batch-one"], "asks for a batch of 1, and it has a batch of 2"),
])
def test_a_package_that_is_not_what_flags_ask_for_is_refused(here, foreign, flags, said):
    printed = torch2coreml(here, "--convert-unet", "-o", "out", *flags, status=2)

    assert said in printed
    assert "hint: move it away, so that it is converted again" in printed


def test_a_package_gets_palettes_once_and_no_others_afterwards(here, foreign):
    """Of Apple's converter the second command says that it gives 4 bits, and leaves 6."""
    torch2coreml(here, "--quantize-nbits", "8", "-o", "out")
    model = read_package(foreign)
    assert {weight.bits for weight in weights(model)} - {16, 32} == {8}

    printed = torch2coreml(here, "--quantize-nbits", "4", "-o", "out", status=2)

    assert "its weights have 8 bits, and what they were is lost, so they cannot get 4" in printed


def test_a_model_that_was_changed_since_is_left_alone(here):
    flags = ["--convert-vae-encoder", "--model-version", "MODEL_diffusers", "-o", "out"]
    torch2coreml(here, *flags)
    package = here / "out" / f"{MODEL}_vae_encoder.mlpackage"
    manifest = package / "Manifest.json"
    content = manifest.read_text()
    manifest.unlink()
    manifest.write_text(content.replace("\n", " "))

    printed = torch2coreml(here, *flags)

    assert "the package that is there is used; sdbuild did not make it" in printed
    assert manifest.read_text() != content


def test_nothing_to_do_is_said(here):
    assert "nothing to convert" in torch2coreml(here, "-o", "out", status=2)


def test_a_repository_of_the_hub_is_fetched_and_named(here, hub):
    hub.add("runwayml/stable-diffusion-v1-5", content())

    torch2coreml(here, "--convert-vae-decoder", "--model-version=runwayml/stable-diffusion-v1-5",
                 "-o", "out")

    name = "Stable_Diffusion_version_runwayml_stable-diffusion-v1-5_vae_decoder.mlpackage"
    assert [path.name for path in (here / "out").glob("*.mlpackage")] == [name]
    assert json.loads((here / "out" / ".sdbuild-torch2coreml.json").read_text())["models"].keys() \
        == {name}


def test_a_checkpoint_with_another_tokenizer_is_refused(here):
    """apple/coremltools, issue 1717: a KeyError after minutes."""
    folder = here / "japanese"
    shutil.copytree(CHECKPOINT, folder)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"\n\x0e")

    printed = torch2coreml(here, *PARTS, "--convert-safety-checker", "-o", "out",
                           "--model-version", "japanese", "--bundle-resources-for-swift-cli",
                           "--attention-implementation", "ORIGINAL", status=1)

    assert "tokenizer" in printed
    assert "ERROR" in printed
    assert steps_of(printed) <= {"download:text_encoder", "download:resources"}


def test_an_image_is_drawn_as_the_bundle_draws_it_for_apples_python(here):
    """Expected: `generate` with `host=apple-python` and the same numbers."""
    torch2coreml(here, *ALL, "--bundle-resources-for-swift-cli")
    drawn = ["--prompt", "a fox", "-i", "out", "-o", "images", "--seed", "3", "--scheduler", "DDIM",
             "--num-inference-steps", "2", "--guidance-scale", "5",
             "--model-version", "MODEL_diffusers"]

    sdbuild(here, "pipeline", *drawn)
    sdbuild(here, "pipeline", *drawn[:4], "-o", "compiled", *drawn[6:], "--model-sources",
            "compiled")

    sdbuild(here, "generate", str(here / "out" / "Resources"), "prompt=a fox", "seed=3", "steps=2",
            "guidance=5", "scheduler=ddim", "host=apple-python", f"out={here / 'same.png'}")
    name = ("randomSeed_3_computeUnit_ALL_modelVersion_MODEL_diffusers_customScheduler_DDIM_"
            "numInferenceSteps2.png")
    wanted = np.asarray(Image.open(here / "same.png"))
    for folder in ("images", "compiled"):
        found = np.asarray(Image.open(here / folder / "a_fox" / name))
        assert (found == wanted).all()


def test_packages_are_drawn_with_the_tokenizer_of_the_checkpoint_that_is_named(here):
    """Of a checkpoint whose words for two colors are exchanged, as beside the same packages."""
    torch2coreml(here, *PARTS, "--model-version", "MODEL_diffusers", "--attention-implementation",
                 "ORIGINAL", "-o", "out")
    vocabulary = Path(shutil.copytree(CHECKPOINT, here / "own")) / "tokenizer" / "vocab.json"
    words = json.loads(vocabulary.read_text("utf-8"))
    words["red</w>"], words["blue</w>"] = words["blue</w>"], words["red</w>"]
    vocabulary.write_text(json.dumps(words, ensure_ascii=False), "utf-8")

    def drawn(version, prompt):
        images = here / f"images of {version}"
        printed = sdbuild(here, "pipeline", "--prompt", prompt, "-i", "out", "-o", images.name,
                          "--num-inference-steps", "1", "--model-version", version)
        assert "CLIP's own are used" not in printed
        assert "the schedule of" not in printed  # it is the checkpoint's own
        assert "steps and guidance of" not in printed  # flags say them
        return np.asarray(Image.open(next(images.rglob("*.png"))))

    assert (drawn("own", "a red fox") == drawn("MODEL_diffusers", "a blue fox")).all()


@pytest.mark.parametrize("merge", [False, True])
def test_a_package_of_any_name_is_cut_and_computes_the_same(here, foreign, merge):
    package = foreign.rename(here / "unet.mlpackage")

    printed = sdbuild(here, "chunk", "--mlpackage-path", "unet.mlpackage", "-o", "cut",
                      "--check-output-correctness", "--remove-original",
                      *(["--merge-chunks-in-pipeline-model"] if merge else []))

    assert "no difference between the package and its chunks" in printed
    assert {path.name for path in (here / "cut").glob("*.mlpackage")} == (
        {"unet_chunked_pipeline.mlpackage"} if merge
        else {"unet_chunk1.mlpackage", "unet_chunk2.mlpackage"})
    assert not Path(package).exists()
