"""Hosts that run a bundle, as read in their sources at the commits that the entries name."""

import pytest

from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.compatibility import LOADERS, summary_of, table, verdicts, with_hosts
from tests.bundle.probes import (
    CN,
    REFINER,
    SD,
    SD3,
    XL,
    add,
    all_of,
    batch,
    flexible,
    port,
    remove,
    says,
)
from tests.bundle.small_bundles import SmallBundle, ruined


def nothing(bundle):
    """Leaves the bundle as it is."""


SWIFT, MOCHI, HUB_APP = "Apple's Swift package", "MochiDiffusion", "swift-coreml-diffusers"
PYTHON, COMFY = "Apple's Python pipeline", "ComfyUI-CoreMLSuite"
NUMBER_IN_METADATA = ruined("Unet", "metadata.json", old=b'"isOptional" : "0"',
                            new=b'"isOptional" : 0')
FP16_VAE = port("VAEDecoder", "z", dtype="Float16")
Z = port("VAEEncoder", "x", new_name="z")
CASES = [
    (SD, nothing, SWIFT, "yes", ""),
    (SD, nothing, MOCHI, "yes", ""),
    (SD, nothing, COMFY, "yes", ""),
    (XL, nothing, SWIFT, "yes", ""),
    (SD3, nothing, SWIFT, "partly", "image to image crashes"),
    (SD3, nothing, MOCHI, "no", "latents are scaled by 1.5305, and it takes 0.18215"),
    (SD3, nothing, HUB_APP, "partly", "no image to image"),
    (XL, nothing, "off-grid-mobile", "no", "latents are scaled by 0.13025, and it takes 0.18215"),
    (XL, says(scale_factor=0.18215), "off-grid-mobile", "yes", ""),
    (XL, says(scale_factor=0.18215), MOCHI, "no", "scaled by 0.18215, and it takes 0.13025"),
    (XL, says(draw={"steps": 1}), MOCHI, "no", "crashes at one step"),
    (REFINER, nothing, SWIFT, "partly", "UnetRefiner takes over after 80 % of the steps"),
    (SD, says(sizes=[[512, 512], [512, 768]]), MOCHI, "partly",
     "images of 512x512 alone, the first of 2 sizes: it selects no function of a model"),
    (SD, remove("VAEEncoder"), MOCHI, "partly", "no image to image: there is no VAEEncoder"),
    (SD, flexible("VAEEncoder", "x"), MOCHI, "no", "VAEEncoder.mlmodelc x: found a flexible"),
    (CN, nothing, SWIFT, "yes", ""),
    (CN, nothing, MOCHI, "partly", "a folder controlnet in the bundle hides the app's own"),
    ("cn-chunks", remove("controlnet/NetA"), MOCHI, "partly", "ControlledUnet is in chunks"),
    (CN, nothing, HUB_APP, "partly", "no ControlNets"),
    (SD, nothing, "Guernika", "no", "the input of VAEEncoder is not called z"),
    (SD, Z, "Guernika", "yes", ""),
    (SD, remove("VAEEncoder"), "Guernika", "partly", "no image to image"),
    (XL, Z, "Guernika", "no", "TextEncoder2.mlmodelc gives no last_hidden_state"),
    (SD, all_of(Z, port("Unet", "encoder_hidden_states", shape=[2, 77, 768])), "Guernika", "no",
     "not of rank four"),
    (SD, nothing, "RunAnywhere", "partly", "no use for VAEEncoder"),
    ("sd-chunks", nothing, "RunAnywhere", "no", "the U-Net is in chunks"),
    (SD, batch(1, "Unet"), "RunAnywhere", "no", "a batch of 1, and it feeds two"),
    (SD, batch(1, "Unet"), SWIFT, "yes", ""),
    (XL, nothing, "RunAnywhere", "no", "does not run sdxl"),
    ("safety-safe", nothing, "RunAnywhere", "partly", "no safety checker: it never runs it"),
    ("safety-safe", nothing, "Unity and React plugins", "partly", "that SafetyChecker flags"),
    ("sd-chunks", nothing, PYTHON, "no", "the U-Net is in chunks"),
    (SD, port("Unet", "noise_pred", new_name="out"), PYTHON, "no", "gives no noise_pred"),
    (SD, port("Unet", "noise_pred", new_name="out"), SWIFT, "yes", ""),
    (SD, port("VAEDecoder", "z", new_name="latent"), PYTHON, "no", "does not turn z into image"),
    (SD, port("TextEncoder", "input_ids", new_name="ids"), PYTHON, "no", "takes no input_ids"),
    (SD, port("Unet", "timestep", dtype="Float32"), PYTHON, "no", "timestep is fp32, and it feeds"),
    (XL, nothing, PYTHON, "no", "VAEDecoder.mlmodelc z is fp32"),
    (XL, FP16_VAE, PYTHON, "partly", "no use for VAEEncoder"),
    ("sd-chunks", nothing, COMFY, "no", "the U-Net is in chunks"),
    (SD, port("Unet", "noise_pred", new_name="out"), COMFY, "no", "gives no noise_pred"),
    (SD, port("Unet", "sample", shape=[2, 9, 8, 8]), COMFY, "no", "inpainting (nine channels)"),
    (SD, port("Unet", "sample", shape=[2, 9, 8, 8]), "Guernika", "no", "called z"),
    (SD, all_of(Z, port("Unet", "sample", shape=[2, 9, 8, 8])), "Guernika", "yes", ""),
    (SD, all_of(Z, add("Unet", "inputs", "timestep_cond", [2, 256])), "Guernika", "yes", ""),
    (SD, add("Unet", "inputs", "timestep_cond", [2, 256], "Float16"), COMFY, "yes", ""),
    (SD, add("Unet", "inputs", "timestep_cond", [2, 256]), SWIFT, "no", "timestep_cond"),
    (SD, port("Unet", "encoder_hidden_states", shape=[2, 768, 1, 154]), COMFY, "no", "154 tokens"),
    ("sd-chunks", nothing, "PromptToImage", "no", "the U-Net is in chunks"),
    ("sd-chunks", nothing, "off-grid-mobile", "yes", ""),
    (SD, says(prediction_type="v_prediction"), SWIFT, "no", "it predicts v_prediction, not noise"),
    (SD, says(draw={"scheduler": "lcm"}), SWIFT, "partly", "no scheduler lcm, only dpm and pndm"),
    (SD, says(draw={"scheduler": "pndm"}), SWIFT, "yes", ""),
    (SD, nothing, "coreai-models", "no", "its own format"),
    (SD, NUMBER_IN_METADATA, MOCHI, "no",
     "Unet.mlmodelc/metadata.json"),
    (SD, NUMBER_IN_METADATA, SWIFT, "yes",
     ""),
]


@pytest.mark.parametrize(("scenario", "change", "host", "answer", "reason"), CASES)
def test_a_host_runs_a_bundle_or_not_and_why(scenario, change, host, answer, reason, tmp_path):
    bundle = SmallBundle(scenario)
    change(bundle)
    folder = bundle.write(tmp_path / "bundle")

    found = {verdict.host: verdict for verdict in verdicts(open_bundle(folder))}[host]

    assert found.runs == answer, found
    assert reason in "\n".join(found.reasons)
    assert bool(reason) == bool(found.reasons)


def test_every_host_has_a_case_or_loads_none_of_our_files():
    tested = {host for _, _, host, _, _ in CASES}

    assert {loader.name for loader in LOADERS if loader.families} - tested == {
        "DigitalMasterpieces' fork"}


def test_the_table_and_the_summary_fit_80_columns(tmp_path):
    folder = SmallBundle(REFINER).write(tmp_path / "bundle")

    lines = table(verdicts(open_bundle(folder))).splitlines() + summary_of(with_hosts(folder, {}))

    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:5] == ["Apple's", "Swift", "package", "partly", "UnetRefiner"]


def test_a_summary_leaves_out_hosts_that_load_other_files(tmp_path):
    folder = SmallBundle(SD).write(tmp_path / "bundle")

    said = "\n".join(summary_of(with_hosts(folder, {})))

    assert said.startswith("runs in: Apple's Swift package, MochiDiffusion")
    assert "does not run in: Guernika" in said
    assert "Draw Things" not in said


def test_a_manifest_says_which_hosts_run_the_bundle(tmp_path):
    folder = SmallBundle(SD).write(tmp_path / "bundle")

    found = with_hosts(folder, {"family": "sd", "prediction_type": "v_prediction"})

    assert found["family"] == "sd"
    assert found["hosts"]["MochiDiffusion"] == {
        "runs": "no", "reasons": ["black or poor images: it predicts v_prediction, not noise"]}
