"""Bundles that people could not load, as they reported it; each is rebuilt small.

The links say who met it. What is checked is that the contract names the cause.
"""

import pytest

from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.compatibility import verdicts
from sdbuild.bundle.contract import violations
from sdbuild.bundle.rules.rule import ERROR
from tests.bundle.probes import CN, SD, XL, all_of, batch, drop, port, remove
from tests.bundle.small_bundles import SmallBundle

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f2e\nsize 243\n"


def errors(folder):
    return "\n".join(str(v) for v in violations(folder) if v.level == ERROR)


def made(scenario, change, folder):
    bundle = SmallBundle(scenario)
    change(bundle)
    return bundle.write(folder / "bundle")


def old_encoder(bundle):
    """The encoder as Apple's converter wrote it before April 2023."""
    bundle.models["VAEEncoder"] = {
        "inputs": {name: [shape, "Float16"] for name, shape in {
            "sample": [1, 3, 64, 64], "diagonal_noise": [1, 4, 8, 8], "noise": [1, 4, 8, 8],
            "sqrt_alphas_cumprod": [1, 1], "sqrt_one_minus_alphas_cumprod": [1, 1]}.items()},
        "outputs": {"latent_dist": [[1, 4, 8, 8], "Float32"]},
    }


REPORTED = {
    # https://github.com/apple/ml-stable-diffusion/issues/72
    # https://github.com/apple/coremltools/issues/1717
    "a safety checker of the picture's size": (
        "safety-safe", port("SafetyChecker", "images", shape=[1, 768, 768, 3]),
        "SafetyChecker.mlmodelc images: found (1, 768, 768, 3), expected (1, 512, 512, 3)"),
    # https://github.com/apple/ml-stable-diffusion/issues/176
    # https://github.com/MochiDiffusion/MochiDiffusion/issues/234
    "an encoder of the converter before April 2023": (
        SD, old_encoder, "VAEEncoder.mlmodelc: found inputs diagonal_noise, noise, sample, "),
    # https://github.com/apple/ml-stable-diffusion/issues/143
    "an encoder with the sides exchanged": (
        SD, all_of(port("Unet", "sample", shape=[2, 4, 8, 16]),
                   port("Unet", "noise_pred", shape=[2, 4, 8, 16]),
                   port("VAEDecoder", "z", shape=[1, 4, 8, 16]),
                   port("VAEDecoder", "image", shape=[1, 3, 64, 128]),
                   port("VAEEncoder", "x", shape=[1, 3, 128, 64]),
                   port("VAEEncoder", "latent", shape=[1, 8, 16, 8])),
        "VAEEncoder.mlmodelc: found pictures of 64×128, expected 128×64"),
    # https://github.com/apple/ml-stable-diffusion/issues/64
    "a decoder of another size than the U-Net": (
        SD, all_of(port("Unet", "sample", shape=[2, 4, 12, 8]),
                   port("Unet", "noise_pred", shape=[2, 4, 12, 8])),
        "VAEDecoder.mlmodelc: found latents of 8×8 in 4 channels, expected 8×12"),
    # https://github.com/apple/ml-stable-diffusion/issues/334
    "SDXL for inpainting whose U-Net lost time_ids": (
        XL, all_of(drop("Unet", "time_ids", "text_embeds"),
                   port("Unet", "sample", shape=[2, 9, 8, 8])),
        "expected time_ids among them"),
    # https://github.com/apple/ml-stable-diffusion/issues/229
    "a text encoder of 1.5 beside the second one": (
        XL, port("TextEncoder", "hidden_embeds", new_name="last_hidden_state"),
        "TextEncoder.mlmodelc: found outputs last_hidden_state, pooled_outputs, expected "
        "hidden_embeds"),
    # https://github.com/aszc-dev/ComfyUI-CoreMLSuite/issues/4
    "a ControlNet of batch one for a U-Net of two": (
        CN, batch(1, "controlnet/NetA"),
        "NetA.mlmodelc additional_residual_0: found (1, 320, 8, 8), expected (2, 320, 8, 8)"),
}


@pytest.mark.parametrize("case", REPORTED)
def test_the_contract_names_the_cause_of_a_reported_failure(case, tmp_path):
    scenario, change, cause = REPORTED[case]

    assert cause in errors(made(scenario, change, tmp_path))


@pytest.mark.parametrize("file", [
    "UnetChunk1.mlmodelc/coremldata.bin", "UnetChunk2.mlmodelc/weights/weight.bin",
    "VAEDecoder.mlmodelc/model.mil", "vocab.json", "merges.txt",
])
def test_a_pointer_of_git_lfs_in_place_of_a_file_is_named(file, tmp_path):
    """https://github.com/MochiDiffusion/MochiDiffusion/issues/319: "the first word (1936876918)"
    are the bytes `vers`. A pointer for merges.txt is three lines of two words, as rules are."""
    folder = made("sd-chunks", all_of(), tmp_path)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(POINTER)

    assert f"{file}: found a Git LFS pointer, expected the file" in errors(folder)


def test_models_in_a_folder_of_the_archive_are_named(tmp_path):
    """https://github.com/huggingface/swift-coreml-diffusers/issues/100 and 68: archives with
    folders `compiled` and `packages`, where hosts look for models at the top."""
    folder = made(XL, all_of(), tmp_path)
    outer = tmp_path / "archive"
    outer.mkdir()
    folder.rename(outer / "compiled")
    (outer / "packages").mkdir()

    found = errors(outer)

    assert "TextEncoder.mlmodelc: found compiled/TextEncoder.mlmodelc, expected the model" in found
    assert "Unet.mlmodelc: found compiled/Unet.mlmodelc" in found


def test_packages_beside_compiled_models_are_named(tmp_path):
    """https://github.com/huggingface/diffusers/issues/9471: "Multiple file extensions found"."""
    folder = made(SD, all_of(), tmp_path)
    (folder / "Stable_Diffusion_version_1-5_unet.mlpackage").mkdir()

    (found,) = violations(folder)

    assert (found.rule, found.level) == ("holds_no_packages", "warning")
    assert "Apple's Python pipeline refuses a folder" in str(found)


def test_weights_that_are_not_there_are_named(tmp_path):
    """https://github.com/apple/ml-stable-diffusion/issues/5: "Could not open" weight.bin."""
    folder = made("safety-safe", all_of(), tmp_path)
    program = folder / "SafetyChecker.mlmodelc" / "model.mil"
    program.write_text(program.read_text() + '// "@model_path/weights/weight.bin"')

    assert "SafetyChecker.mlmodelc/weights/weight.bin: found no file" in errors(folder)


def test_a_bundle_for_controlnets_without_the_unet_for_them_is_told_so(tmp_path):
    """https://github.com/MochiDiffusion/MochiDiffusion/issues/323: ControlNets that cannot be used,
    as the model has no ControlledUnet, nor an encoder."""
    folder = made(CN, remove("ControlledUnet", "VAEEncoder"), tmp_path)

    found = "\n".join(map(str, violations(folder)))

    assert "ControlledUnet.mlmodelc: found nothing, expected it, or its two chunks" in found
    assert "VAEEncoder.mlmodelc: found nothing" in found


def test_a_chunked_unet_of_sdxl_is_listed_by_apps(tmp_path):
    """https://github.com/MochiDiffusion/MochiDiffusion/issues/319: xl-base-ios was not listed, as
    its U-Net is in chunks; the app has read those since."""
    folder = made("xl-base-refiner-chunks", remove("UnetRefinerChunk1", "UnetRefinerChunk2"),
                  tmp_path)
    found = {verdict.host: verdict.runs for verdict in verdicts(open_bundle(folder))}

    assert (found["MochiDiffusion"], found["Apple's Python pipeline"]) == ("yes", "no")


@pytest.mark.parametrize("scenario", [SD, "sd-chunks", XL, CN, "sd3-t5"])
def test_a_bundle_whose_outputs_declare_no_shape_is_a_good_one(scenario, tmp_path):
    """https://github.com/apple/ml-stable-diffusion/issues/143 shows the metadata of such an
    encoder: Apple's converter declares shapes of inputs alone."""
    bundle = SmallBundle(scenario)
    for ports in bundle.models.values():
        for declared in ports["outputs"].values():
            declared[0] = []

    assert errors(bundle.write(tmp_path / "bundle")) == ""


def test_latents_without_a_shape_are_named(tmp_path):
    folder = made(SD, port("Unet", "sample", shape=[]), tmp_path)

    assert "Unet.mlmodelc sample: found no shape, expected its default one" in errors(folder)


def test_prompts_that_the_system_encodes_need_no_vocabulary(tmp_path):
    folder = made("ml-latin", lambda b: b.files.clear(), tmp_path)

    assert errors(folder) == ""
