"""Quantized activations: what runs for them, and a bundle that still generates its images."""

import json
import shlex

import pytest

from sdbuild.bundle.manifest import load_bundle
from sdbuild.reports.page.facts import facts_of

pytestmark = pytest.mark.slow


def test_a_bundle_with_quantized_activations_is_built_checked_and_named(project):
    prompts = project.folder / "prompts.txt"
    prompts.write_text("a fox on a pink background\na car on a blue background\n", "utf-8")
    words = ("activations=8", "quant=none", "target=iOS17", f"calibrate={prompts}")

    ran = project.ran("build", *words)

    assert {"observe:unet", "quantize:unet", "chunk:unet", "compile:unet"} <= ran
    assert {"parity:unet", "pictures"} <= project.ran("check", *words)
    manifest = json.loads((project.bundle / "manifest.json").read_text("utf-8"))
    assert manifest["components"]["unet"]["activations"] == 8
    counts = {}
    for metadata in project.bundle.glob("Unet*/metadata.json"):
        for name, count in json.loads(metadata.read_text("utf-8"))[0][
                "mlProgramOperationTypeHistogram"].items():
            counts[name] = counts.get(name, 0) + count
    assert counts["Ios17.quantize"] == counts["Ios17.dequantize"] > 20
    command = shlex.split(facts_of(load_bundle(project.bundle), None, None).command)[1:]
    assert {"activations=8", "quant=none"} <= set(command)
    assert project.ran(*command, f"calibrate={prompts}") <= {"bundle"}
    assert not project.ran("build", *words[:2], "target=iOS17", "chunk=1",
                           words[3]) & {"observe:unet", "quantize:unet"}
