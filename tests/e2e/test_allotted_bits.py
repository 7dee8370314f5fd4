"""Bits of its own for each weight: what runs for another budget, and what lands in the bundle."""

import json
import shlex

import numpy as np
import pytest

from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.reports.page.facts import facts_of
from sdbuild.runtime.pipeline import Pipeline

pytestmark = pytest.mark.slow

AFTER = {f"{kind}:unet" for kind in ("allocate", "assign", "chunk", "compile")}


@pytest.fixture
def words(tmp_path):
    """The U-Net alone, calibrated on two prompts."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox on a pink background\n\na car on a blue background\n", "utf-8")
    return ("palettize=unet", f"calibrate={prompts}")


def test_another_budget_costs_palettes_only_and_a_bit_recipe_no_calibration(project, words):
    first = project.ran("build", "quant=4.0", *words)
    bits = json.loads((project.bundle / "manifest.json").read_text("utf-8"))["bits"]
    sizes = {"4.0": size(project.bundle)}

    assert first == AFTER | {"calibrate:unet", "rate:unet", "bundle"}
    assert set(bits["components"]) == {"unet"}
    assert len(set(bits["components"]["unet"].values())) > 2
    assert set(bits["components"]["unet"].values()) <= {1, 2, 4, 6, 8}
    assert picture(project.bundle).shape == (128, 128, 3)

    for budget in ("quant=3.0", "size_mb=1.5", "quality=30.0dB"):
        assert project.ran("build", budget, *words) == AFTER | {"bundle"}
        assert budget in command(project.bundle)
        assert project.ran(*command(project.bundle)[1:], *words) == set()
        sizes[budget] = size(project.bundle)
    assert sizes["quant=3.0"] < sizes["4.0"]
    assert sizes["size_mb=1.5"] <= 1_500_000

    recipe = project.folder / "bits.json"
    recipe.write_text(json.dumps(bits), "utf-8")
    assert project.ran("build", f"bits={recipe}", "palettize=unet") == AFTER | {"bundle"}
    (unet,) = [p for p in facts_of(load_bundle(project.bundle), None, None).parts
               if p.name == "unet"]
    assert unet.weights_word == "bits of each weight"
    assert f"bits={project.bundle / 'manifest.json'}" in command(project.bundle)
    assert project.ran(*command(project.bundle)[1:], "palettize=unet") == set()
    assert abs(size(project.bundle) - sizes["4.0"]) < 1000


def command(bundle):
    """The words of the command that a report says builds a bundle again."""
    return shlex.split(facts_of(load_bundle(bundle), None, None).command)


def size(bundle):
    """Bytes of the weights of the U-Net."""
    return sum(p.stat().st_size for p in bundle.glob("Unet*/weights/*"))


def picture(bundle):
    request = Request(prompt="a fox on a pink background", negative="", seed=1, steps=2,
                      guidance=5.0, scheduler="dpm", count=1)
    return np.asarray(next(Pipeline(load_bundle(bundle), "portable").draw(request)).image)
