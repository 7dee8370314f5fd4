"""Sweeps: which bundles a list of bits stands for, and which lists are refused."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe.recipe import load
from sdbuild.recipe.sweep import AVERAGE, EQUAL, GIVEN, points

BITS = '{"schema": 1, "components": {"unet": {"conv_in.weight": 8}}}'


def asked(bits, **words):
    return [(point.series, dict(point.words)) for point in points(load(words), bits)]


def test_equal_bits_are_those_that_core_ml_has_for_the_target():
    averages = [(AVERAGE, {"quant": f"{bits}.0"}) for bits in (3, 4, 5, 6)]

    assert asked("3,4,5,6") == [(EQUAL, {"quant": "4"}), (EQUAL, {"quant": "6"}), *averages]
    assert asked("3,4,5,6", target="iOS18") == [
        *((EQUAL, {"quant": bits}) for bits in "346"), *averages]


def test_an_average_and_a_bit_recipe_stand_for_one_bundle_each():
    assert asked("own.json,4.5,2") == [
        (EQUAL, {"quant": "2"}), (AVERAGE, {"quant": "4.5"}), (AVERAGE, {"quant": "2.0"}),
        (GIVEN, {"bits": "own.json"})]


def test_every_bundle_has_a_name_of_its_own(tmp_path):
    (tmp_path / "own.json").write_text(BITS, "utf-8")

    found = [load(words).variant for _, words in asked(f"3,4,5,6,{tmp_path / 'own.json'}")]

    assert len(set(found)) == len(found) == 7


@pytest.mark.parametrize(("bits", "said"), [
    ("9", "bits has '9', expected bits from 1 to 8"), ("0", "expected bits from 1 to 8"),
    ("4,8.5", "bits has '8.5'"), ("4,4", "each once"), ("4,", "commas between them"),
    ("", "commas between them"), ("4,4.0", "bits=4,4.0 is quant=4.0 twice"),
])
def test_what_is_no_list_of_bits_is_refused(bits, said):
    with pytest.raises(RecipeError) as refused:
        asked(bits)

    assert said in str(refused.value)


def test_a_recipe_with_a_budget_of_its_own_is_refused():
    with pytest.raises(RecipeError, match="gives weights bits by size_mb=2"):
        asked("4", size_mb="2")
