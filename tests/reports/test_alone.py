"""Images judged without a reference: what no bundle that works generates."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdbuild.bundle.request import Request
from sdbuild.reports.alone import alone, fault, judged_alone, structure, with_blank
from tests.pages import ROOT

ASKED = Request(prompt="a fox", negative="", seed=7, steps=3, guidance=1.0, scheduler="dpm",
                count=1)
SHEET = Image.open(ROOT / "docs" / "images" / "tiny-emoji.png").convert("RGB")
TILE = SHEET.width // 8
EMOJI = [SHEET.crop((x, y, x + TILE, y + TILE)) for y in range(0, SHEET.height, TILE)
         for x in range(0, SHEET.width, TILE)]


def noise(seed, cell):
    """Independent cells of some pixels, as latents of noise are decoded."""
    drawn = np.random.default_rng(seed).integers(0, 256, (128 // cell, 128 // cell, 3), np.uint8)
    return Image.fromarray(drawn.repeat(cell, 0).repeat(cell, 1))


def test_no_image_of_a_bundle_that_works_has_a_fault():
    assert [fault(image) for image in EMOJI] == [""] * 64
    assert min(map(structure, EMOJI)) > 0.5


@pytest.mark.parametrize("cell", [1, 8])
def test_noise_is_found_of_pixels_and_of_latents(cell):
    assert {fault(noise(seed, cell)) for seed in range(20)} == {"noise"}


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 30, 40)])
def test_one_color_is_found(color):
    """apple/ml-stable-diffusion, issue 14: every image is blank."""
    assert fault(Image.new("RGB", (64, 64), color)) == "one color"


def test_structure_is_the_correlation_of_neighboring_cells():
    # a ramp of n cells: the variance is step² (n² - 1) / 12, of steps only those along it count
    ramp = np.broadcast_to(np.arange(16).repeat(8)[None, :, None] * 10, (128, 128, 3))

    found = structure(Image.fromarray(ramp.astype(np.uint8)))

    assert found == pytest.approx(1 - 100 / 2 / (2 * 100 * (16**2 - 1) / 12))


def test_an_image_that_is_the_same_without_its_prompt_fails():
    requests = (ASKED, replace(ASKED, seed=8))
    assert [r.prompt for r in with_blank(requests)] == ["a fox", "a fox", ""]

    deaf = judged_alone(requests, [EMOJI[0], EMOJI[1], EMOJI[0]])
    hears = judged_alone(requests, [EMOJI[0], EMOJI[1], EMOJI[2]])

    assert "7  the same without the prompt" in deaf.table and deaf.problem
    assert "8  no fault" in deaf.table and "quality: broken" in deaf.table
    assert "quality: not judged" in hears.table and not hears.problem


@pytest.mark.parametrize("told", [{"prompt": ""}, {"image": "room.png"}])
def test_a_request_that_no_prompt_decides_alone_is_not_tried_without(told):
    assert len(with_blank([replace(ASKED, **told)])) == 1


def test_an_image_that_is_not_finite_is_broken():
    (found,) = alone([ASKED], [None, EMOJI[0]])

    assert found.fault == "not finite"
