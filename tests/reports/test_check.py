"""The verdicts of `doit check`: parity and quality, and what ends with an error."""

import json
import math

import pytest

from sdbuild.base.errors import CheckFailed
from sdbuild.recipe.recipe import load
from sdbuild.reports.check import report
from sdbuild.reports.verdict import Picture, verdict
from tests.engine.chains import put

ACCEPTS = '[check]\naccepts = "broken"\nreason = "a study of noise, which nobody will look at"\n'
RECIPE = 'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["text_encoder", "unet"]\n'


def picture(psnr_db):
    return Picture(prompt="a fox", seed=1, psnr_db=psnr_db)


@pytest.mark.parametrize("psnr_db, word", [
    (math.inf, "same"), (28, "same"), (27.99, "changed"), (14, "changed"), (13.99, "broken"),
    (-math.inf, "broken"), (math.nan, "broken"),
])
def test_the_verdict_on_a_picture_is_a_word(psnr_db, word):
    assert picture(psnr_db).verdict == word


def test_a_bundle_is_as_good_as_its_worst_picture():
    assert verdict([picture(40), picture(30)]) == "same"
    assert verdict([picture(40), picture(20), picture(30)]) == "changed"
    assert verdict([picture(40), picture(math.nan), picture(20)]) == "broken"


@pytest.fixture
def checked(store, tmp_path):
    """Reports on pictures of these PSNR, for a recipe with these words and tables."""
    def check(*psnrs, prompt="a fox", parity=99.0, tables="", **words):
        path = tmp_path / "my.toml"
        path.write_text(RECIPE + tables)
        compared = [{"output": "noise_pred", "psnr_db": parity, "is_finite": True}]
        drawn = [{"prompt": prompt, "seed": seed, "psnr_db": psnr, "is_finite": psnr is not None}
                 for seed, psnr in enumerate(psnrs, 1)]
        records = {"unet": put(store, tmp_path, "parity:unet", {"parity.json": json.dumps(
            {"samples": compared, "nonfinite": []})})}
        pictures = put(store, tmp_path, "pictures", {"pictures.json": json.dumps(drawn)})
        return report(records, pictures if psnrs else None, store,
                      load({"model": str(path), **words}))
    return check


def test_both_verdicts_are_given(checked):
    lines = checked(41.5, 20.0, quant="6").splitlines()

    assert "parity: the same program" in lines
    assert lines[-1] == "quality: changed"
    assert [line.split()[-3:] for line in lines if "a fox" in line] == [
        ["41.5", "dB", "same"], ["20.0", "dB", "changed"]]


@pytest.mark.parametrize("tables", ["", ACCEPTS], ids=["", "accepted"])
def test_broken_pictures_of_fp16_fail_whatever_the_recipe_accepts(checked, tables):
    broken = r"(?s)not generate the original's images.*quality: broken"
    with pytest.raises(CheckFailed, match=broken):
        checked(50.0, 8.0, quant="none", tables=tables)


def test_broken_pictures_of_palettes_fail_and_the_hint_says_how_to_accept_them(checked):
    with pytest.raises(CheckFailed, match="quality: broken") as raised:
        checked(8.0, quant="2")

    assert 'accepts = "broken"' in raised.value.hint


def test_broken_pictures_of_palettes_pass_where_the_recipe_accepts_them(checked):
    printed = checked(8.0, quant="2", tables=ACCEPTS)

    assert "broken, as the recipe accepts: a study of noise" in " ".join(printed.split())


def test_a_recipe_that_palettizes_nothing_is_fp16(checked):
    with pytest.raises(CheckFailed):
        checked(8.0, quant="2", palettize="none", tables=ACCEPTS)


def test_what_is_not_finite_is_broken(checked):
    with pytest.raises(CheckFailed, match=r"a fox +1 +NaN  broken"):
        checked(None, quant="none")


def test_a_network_below_its_floor_fails_though_its_pictures_are_the_same(checked):
    with pytest.raises(CheckFailed, match=r"(?s)below the floor: unet\.noise_pred.*quality: same"):
        checked(50.0, quant="none", parity=20.0)


def test_both_failures_are_reported_at_once(checked):
    with pytest.raises(CheckFailed, match="quality: broken") as raised:
        checked(5.0, quant="none", parity=20.0)

    assert "below the floor: unet.noise_pred\n" in raised.value.message
    assert "does not generate the original's images\n" in raised.value.message
    assert "[floors.unet]" in raised.value.hint and "fp16" in raised.value.hint


def test_a_bundle_that_cannot_draw_is_not_judged(checked):
    assert "quality: not judged" in checked(quant="none")


def test_a_report_fits_into_80_columns(checked):
    prompt = "a fox\nand another one, " + "far away in the woods, " * 9
    long = ACCEPTS.replace("a study", "a study " * 20)

    printed = checked(8.0, 3.25, prompt=prompt, quant="2", tables=long)
    with pytest.raises(CheckFailed) as raised:
        checked(8.0, -3.25, prompt=prompt, quant="none")

    lines = f"{printed}\n{raised.value}".splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("a fox and another one" in line for line in lines) == 4
