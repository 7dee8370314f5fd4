"""Models with the ports that our families declare are what hosts expect."""

import pytest

from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.contract import violations
from sdbuild.bundle.rules.rule import ERROR
from sdbuild.families import FAMILIES
from tests.bundle.probes import says
from tests.bundle.small_bundles import SmallBundle

SIZES = {"B": 2, "C": 4, "I": 4, "2C": 8, "H": 64, "W": 64, "h": 8, "w": 8, "S": 77, "P": 1280}
WIDTHS = {
    ("sd", "text_encoder"): 768, ("sd", "unet"): 768,
    ("sdxl", "text_encoder"): 768, ("sdxl", "text_encoder_2"): 1280, ("sdxl", "unet"): 2048,
    ("sdxl", "refiner"): 1280, ("sdxl", "controlled_unet"): 2048, ("sdxl", "controlnet"): 2048,
    ("sdxl-refiner", "text_encoder_2"): 1280, ("sdxl-refiner", "unet"): 1280,
    ("sd3", "text_encoder_2"): 1280, ("sd3", "text_encoder_3"): 4096, ("sd3", "transformer"): 4096,
}
"""Embedding widths of published checkpoints, by family and component."""
STABLE_DIFFUSION_3 = {"C": 16, "I": 16, "2C": 32}
TRANSFORMER = {"S": 154, "P": 2048}
"""Dimensions of Stable Diffusion 3's transformer that differ: 77 tokens of CLIP and 77 of T5."""
DTYPES = {"fp16": "Float16", "fp32": "Float32"}


def declared(family, component):
    dims = SIZES | {"D": WIDTHS.get((family.name, component.name), 768)}
    dims |= STABLE_DIFFUSION_3 if family.name == "sd3" else {}
    dims |= TRANSFORMER if component.name == "transformer" else {}
    sides = {}
    for side in ("inputs", "outputs"):
        sides[side] = {}
        for port in getattr(component, side):
            shape = [dims[d] if isinstance(d, str) else d for d in port.shape]
            if port.is_numbered:
                sides[side][f"{port.name}_0"] = [[2, 320, 8, 8], DTYPES[port.dtype]]
                sides[side][f"{port.name}_1"] = [[2, 640, 4, 4], DTYPES[port.dtype]]
            else:
                sides[side][port.name] = [shape, DTYPES[port.dtype]]
    return sides


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_of_all_components_of_a_family_breaks_no_rule_with_an_error(name, tmp_path):
    family = FAMILIES[name]
    models = {
        f"controlnet/{c.bundle_name}" if c.name == "controlnet" else c.bundle_name:
            declared(family, c) for c in family.components
    }
    bundle = SmallBundle(models=models)
    says(family=name, components={})(bundle)  # built on purpose: hosts run no ControlNets of XL
    folder = bundle.write(tmp_path / "bundle")
    found = violations(folder)

    assert [str(violation) for violation in found if violation.level == ERROR] == []
    assert open_bundle(folder).family == name


@pytest.mark.parametrize(("manifest", "family"), [
    ({"family": "sd"}, "sd"), ({"family": "sd3"}, "sd3"),
    ({"family": "flux"}, "sdxl"), ({"family": ["sd"]}, "sdxl"), ({}, "sdxl"),
])
def test_a_manifest_names_the_family_if_it_is_one_that_is_known(manifest, family, tmp_path):
    bundle = SmallBundle("xl-base")
    says(**manifest)(bundle)

    assert open_bundle(bundle.write(tmp_path / "bundle")).family == family
