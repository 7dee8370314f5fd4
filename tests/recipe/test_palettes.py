"""Equal bits with exceptions, and tables for groups of channels: what a recipe may ask for."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe.recipe import load
from sdbuild.steps.palettize import STAGE


def params(**words):
    """The parameters of the step of each component with palettes."""
    recipe = load(words)
    return {c.name: STAGE.params(recipe, c) for c in recipe.components if STAGE.applies(recipe, c)}


def test_exceptions_and_groups_are_parameters_of_the_components_that_have_them():
    found = params(mixed="unet.*conv_in*:8,unet.*to_q*:4", group_size="16", target="iOS18")

    assert found["unet"] == {
        "nbits": 6, "mixed": {"*conv_in*": 8, "*to_q*": 4}, "group_size": 16}
    assert found["text_encoder"] == {"nbits": 6, "group_size": 16}


def test_without_them_no_step_has_another_key():
    assert params() == {"text_encoder": {"nbits": 6}, "unet": {"nbits": 6}}


def test_bundles_that_differ_in_them_have_names_of_their_own():
    words = {"target": "iOS18"}
    names = [load(words | more).variant for more in (
        {}, {"group_size": "16"}, {"group_size": "8"}, {"mixed": "unet.*conv_in*:8"})]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("words", "said"), [
    ({"group_size": "16"}, "group_size=16 with target=iOS16: several tables for a weight"),
    ({"group_size": "0", "target": "iOS18"}, "group_size is '0', expected"),
    ({"group_size": "16", "target": "iOS18", "quant": "4.0"}, "group_size with quant=4: it"),
    ({"mixed": "unet.a*:8", "quant": "none"}, "mixed with quant=none"),
    ({"mixed": "unet.a*:8", "size_mb": "2"}, "mixed with size_mb=2"),
    ({"mixed": "unet.a*:3"}, "mixed=unet.a*:3 with target=iOS16: palettes of 3 bits"),
    ({"mixed": "unte.a*:8"}, 'unte has no palettes; did you mean "unet"?'),
    ({"mixed": "unet.a*:5"}, "expected COMPONENT.PATTERN:BITS"),
    ({"mixed": "a*:8"}, "expected COMPONENT.PATTERN:BITS"),
    ({"mixed": ""}, "expected COMPONENT.PATTERN:BITS"),
])
def test_what_no_palette_can_have_is_refused(words, said):
    with pytest.raises(RecipeError) as refused:
        load(words)

    assert said in str(refused.value)
