"""Settings that hold for some families of models only."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe.recipe import load


def test_clip_skip_is_refused_where_the_layer_is_always_the_same():
    with pytest.raises(RecipeError, match="clip_skip=2 for Stable Diffusion XL, expected 1"):
        load({"model": "sdxl-base", "clip_skip": "2"})


def test_a_recipe_that_names_no_scheduler_has_one_that_its_family_can_use(tmp_path):
    """diffusers' pipelines of Stable Diffusion 3 have one that follows a flow."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text('family = "sd3"\nsource = "x"\nsize = "1024"\ncomponents = ["transformer"]')

    assert load({"model": str(recipe)}).draw.scheduler == "flow_euler"
    assert load({"model": str(recipe), "scheduler": "flow_heun"}).request.scheduler == "flow_heun"


@pytest.mark.parametrize(("words", "expected"), [
    ({"prediction": "checkpoint"},
     "prediction=checkpoint for Stable Diffusion 3, expected epsilon"),
    ({"prediction_type": "epsilon"}, "prediction_type for Stable Diffusion 3, expected none"),
    ({"distilled_guidance": "8"}, "distilled_guidance for Stable Diffusion 3, expected none"),
    ({"unet": "few-steps"}, "unet for Stable Diffusion 3, expected none: it has no such component"),
    ({"refiner_source": "x"}, "refiner_source for Stable Diffusion 3, expected none"),
    ({"size": "72x128"}, "size=72x128 for Stable Diffusion 3, expected multiples of 16"),
    ({"model": "sd-1-5", "refiner_source": "x"},
     r"refiner_source for Stable Diffusion 1.x and 2.x, expected none"),
])
def test_what_holds_for_no_component_of_a_family_is_refused(words, expected):
    """Stable Diffusion 3's transformer takes patches of two latent cells, as its config says."""
    with pytest.raises(RecipeError, match=expected) as error:
        load({"model": "sd-3-5-medium"} | words)
    assert error.value.hint
