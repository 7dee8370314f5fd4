"""Several bundles on one page: what they share, and which is the smallest good one."""

import json
import shlex

import pytest

from sdbuild.cli import output
from tests.cli.test_schemas import problems
from tests.e2e.project import ROOT
from tests.reports.page.reading import captions, each, parsed, text

pytestmark = pytest.mark.slow

NETWORKS = ("text_encoder", "unet")
PALETTES = {"chunk:unet", *(f"{kind}:{network}" for kind in ("allocate", "assign", "compile")
                            for network in NETWORKS)}
CALIBRATED = {f"{kind}:{network}" for kind in ("calibrate", "rate") for network in NETWORKS}


@pytest.fixture
def words(project):
    """A recipe of the built-in model, calibrated on two prompts and checked by one quick image."""
    prompts = project.folder / "prompts.txt"
    prompts.write_text("a fox on a pink background\na car on a blue background\n", "utf-8")
    recipe = project.folder / "quick.toml"
    recipe.write_text(f"""family = "sd"
source = "{ROOT / 'recipes' / 'tiny-emoji'}"
size = "128x128"
components = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
chunk = 2
calibrate = "{prompts}"
[draw]
prompt = "a fox on a pink background"
steps = 3
[check]
prompts = ["a red apple on a blue background"]
""", "utf-8")
    return (f"model={recipe}", f"report={project.folder / 'curve.html'}")


def test_a_sweep_shares_all_but_palettes_and_finds_the_smallest_good_bundle(project, words):
    printed = project.sdbuild("sweep", "bits=6,3.0", *words, "--json")
    found, _ = json.JSONDecoder().raw_decode(printed[printed.index("{\n"):])
    ran = [{step["step"] for step in built["output"]["ran"]} for built in found["variants"]]
    variants = found["report"]["variants"]

    assert problems(output.schema("sweep"), found) == []
    assert [each["label"] for each in variants] == ["quant=6", "quant=6.0", "quant=3.0"]
    assert "originals" in ran[0]
    assert ran[1] == PALETTES | CALIBRATED | {"bundle", "pictures"}
    assert ran[2] == PALETTES | {"bundle", "pictures"}
    assert variants[2]["size_bytes"] < variants[1]["size_bytes"]

    good = [each for each in variants if each["images"][0]["psnr_db"] >= 28]
    smallest = min(good, key=lambda each: each["size_bytes"])
    assert found["smallest"] == smallest["label"]
    command = shlex.split(smallest["command"])
    assert project.ran(*command[1:], bundle=project.folder / "again") == set()

    page = parsed((project.folder / "curve.html").read_text("utf-8"))
    (plot, *_) = each(page, "div", "plot")
    assert {"\u200bequal", "\u200bbits", "quant=3.0"} <= set(text(plot).split())


def test_a_report_over_a_matrix_compares_what_was_built_and_a_failure_stops_no_other(
    project, words,
):
    sources = f"source={ROOT / 'recipes' / 'tiny-emoji'},{project.folder / 'none'}"
    printed = project.sdbuild("report", "--matrix", "quant=6,4", "--matrix", sources, *words,
                              "--losses=0", "--json", status=1)
    found, _ = json.JSONDecoder().raw_decode(printed[printed.index("{\n"):])
    good = [built for built in found["variants"] if not built["status"]]
    compared = found["report"]["variants"]

    assert problems(output.schema("report"), found) == []
    assert [built["variables"]["quant"] for built in good] == ["6", "4"]
    assert [each["place"] for each in compared] == [built["output"]["bundle"] for built in good]
    assert {step["step"] for step in good[1]["output"]["ran"]} >= {"parity:unet", "pictures"}
    assert "originals" not in {step["step"] for step in good[1]["output"]["ran"]}
    assert all(each["images"] and each["sheet"] == 0 for each in compared)
    failed = [built["error"]["type"] for built in found["variants"] if built["status"]]
    assert failed == ["SourceError", "SourceError"]
    page = parsed((project.folder / "curve.html").read_text("utf-8"))
    assert "quant=6" in shlex.split(found["report"]["command"])[2]
    assert len(captions(page)[0]) == 1 + len(good)
