"""`sdbuild report` on bundles that were built: a page, and its figures as JSON."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sdbuild.cli import output
from tests.cli.test_schemas import problems
from tests.e2e.project import Project
from tests.e2e.test_generate import generate
from tests.reports.page.reading import captions, each, parsed, rows, text

WORDS = ("prompt=a fox", "seed=4", "steps=2", "count=2", "--losses=2")


@pytest.fixture(scope="module")
def reported(built, tmp_path_factory):
    """The page, what was printed, and the figures, of the fp16 bundle and the one of 6 bits."""
    folder = tmp_path_factory.mktemp("report")
    project = Project(built.folder)
    printed = project.sdbuild("report", str(project.folder / "fp16"), str(project.bundle), *WORDS,
                              "--json", bundle=None, report=folder / "page.html")
    shown, _ = json.JSONDecoder().raw_decode(printed)  # warnings of others come after it
    return folder, shown, json.loads((folder / "page.json").read_text())


def test_the_page_and_its_figures_are_written_and_printed(reported):
    folder, printed, figures = reported

    assert printed["page"] == str(folder / "page.html")
    assert problems(output.schema("report"), printed) == []
    assert {"schema": 1, **printed["report"]} == figures
    page = parsed((folder / "page.html").read_text())
    first, second = figures["variants"]
    assert (first["verdict"], second["verdict"]) == ("reference", "same")
    assert captions(page) == [
        ["reference", f"{second['label']} {image['psnr_db']:.1f} dB {image['verdict']}"]
        for image in second["images"]]
    assert [row[0] for row in rows(each(page, "table")[0])] == [first["label"], second["label"]]
    assert text(each(page, "div", "verdict")[0]).startswith("Still good")


def test_its_figures_are_those_of_the_files_and_of_images_generated_alone(
        reported, built, tmp_path):
    _, _, figures = reported
    for found, folder in zip(figures["variants"], (built.folder / "fp16", built.bundle),
                             strict=True):
        assert found["size_bytes"] == sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert found["licence"] == "mit"

    made = [np.asarray(Image.open(generate(folder, tmp_path / f"{number}.png", "--prompt=a fox",
                                           "--seed=5", "--steps=2")[0]), np.float64)
            for number, folder in enumerate((built.folder / "fp16", built.bundle))]

    psnr = 10 * np.log10(255**2 / np.mean((made[0] - made[1]) ** 2))
    assert figures["variants"][1]["images"][1]["psnr_db"] == pytest.approx(psnr, abs=0.01)


def test_it_tells_which_operations_lose_precision_and_in_which_layers(reported):
    _, _, figures = reported
    losses = figures["variants"][0]["losses"]

    assert {loss["component"] for loss in losses} == {"text_encoder", "unet", "vae_decoder"}
    for component in ("text_encoder", "unet", "vae_decoder"):
        lost = [loss["lost_db"] for loss in losses if loss["component"] == component]
        assert len(lost) == 2 and lost == sorted(lost, reverse=True)
    assert all(loss["layer"] for loss in losses)
    assert any("decoder" in loss["layer"] for loss in losses)


def test_the_steps_before_a_bundle_are_reported_wherever_it_lies_now(reported, built, tmp_path):
    _, _, figures = reported
    steps = {cost["step"] for cost in figures["variants"][1]["costs"]}
    assert {"download:unet", "palettize:unet", "chunk:unet", "compile:vae_decoder"} <= steps
    shipped = {c["step"] for c in figures["variants"][1]["costs"] if c["is_shipped"]}
    assert shipped == {step for step in steps if step.startswith(("trace:", "lower:"))} != set()
    moved = shutil.copytree(built.bundle, tmp_path / "moved")

    built.sdbuild("report", str(moved), *WORDS[:3], "--losses=0", bundle=None,
                  report=tmp_path / "moved.html")

    (found,) = json.loads((tmp_path / "moved.json").read_text())["variants"]
    assert {cost["step"] for cost in found["costs"]} == steps
    assert found["verdict"] == "reference" and found["losses"] == []


def test_a_name_that_is_no_page_is_refused(built):
    printed = built.sdbuild("report", str(built.bundle), "--losses=0", "steps=1", status=2,
                            bundle=None, report="page.txt")

    assert "page.txt: expected the name of a page, FILE.html" in printed
