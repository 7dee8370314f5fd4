"""ControlNets in a recipe: parts of a bundle with sources and names of their own."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.engine.plan import plan
from sdbuild.recipe.components import controlnet_name
from sdbuild.recipe.recipe import load

TWO = "hub:lllyasviel/sd-controlnet-mlsd,hub:lllyasviel/control_v11p_sd15_canny"


@pytest.mark.parametrize("place, name", [
    # `"".join(w.title() for w in re.split("_|-", id.replace("/", "_")))` of Apple's converter
    ("hub:lllyasviel/sd-controlnet-mlsd", "LllyasvielSdControlnetMlsd"),
    ("hub:lllyasviel/control_v11p_sd15_canny@main", "LllyasvielControlV11PSd15Canny"),
    ("hub:lllyasviel/control_v11f1e_sd15_tile", "LllyasvielControlV11F1ESd15Tile"),
    ("/models/my net/canny.v2.safetensors", "CannyV2"),
    ("/models/tiny-emoji-control/", "TinyEmojiControl"),
])
def test_a_controlnet_is_called_as_hosts_call_it(place, name):
    assert controlnet_name(place) == name


def test_each_controlnet_is_a_part_with_steps_of_its_own():
    made = plan(load({"model": "sd-1-5", "controlnet": TWO}))

    names = ("LllyasvielSdControlnetMlsd", "LllyasvielControlV11PSd15Canny")
    for name in names:
        assert made.steps[f"download:controlnet/{name}"].source.places[0].startswith("hub:")
        assert f"compile:controlnet/{name}" in made.steps
    parts = made.steps["bundle"].params["components"]
    assert parts[f"controlnet/{names[0]}"]["models"] == [f"controlnet/{names[0]}.mlmodelc"]
    assert {"unet", "controlled_unet"} <= parts.keys()


def test_controlnets_of_one_architecture_are_traced_and_lowered_once():
    """Their steps differ in what they read alone."""
    made = plan(load({"model": "sd-1-5", "controlnet": TWO}))

    lowered = [step.params for name, step in made.steps.items()
               if name.startswith("lower:controlnet")]
    assert len(lowered) == 2 and lowered[0] == lowered[1]


def test_the_controlled_unet_has_the_palettes_of_the_plain_one():
    made = plan(load({"model": "sd-1-5", "controlnet": TWO, "quant": "6", "chunk": "2"}))

    parts = made.steps["bundle"].params["components"]
    assert parts["controlled_unet"]["nbits"] == parts["unet"]["nbits"] == 6
    assert parts["controlled_unet"]["models"] == ["ControlledUnetChunk1.mlmodelc",
                                                  "ControlledUnetChunk2.mlmodelc"]
    assert made.steps["palettize:controlled_unet"].params == made.steps["palettize:unet"].params


def test_a_recipe_without_controlnets_has_none_of_their_parts():
    assert not [name for name in plan(load({"model": "sd-1-5"})).steps if "control" in name]


@pytest.mark.parametrize("words, said", [
    ({"controlnet": "hub:a/b,hub:a-b/"}, "controlnet"),
    ({"controlnet": "/x/canny,/y/canny.safetensors"}, "both called Canny"),
    ({"components": "unet,controlnet"}, "which one is not said"),
])
def test_controlnets_that_cannot_be_are_refused(words, said):
    with pytest.raises(RecipeError, match=said):
        load({"model": "sd-1-5", **words})


def test_xl_has_controlnets_and_its_refiner_has_none():
    steps = plan(load({"model": "sdxl-base", "controlnet": "hub:diffusers/canny"})).steps

    assert {"convert:controlled_unet", "convert:controlnet/DiffusersCanny"} <= steps.keys()
    with pytest.raises(RecipeError, match="no ControlNets of Stable Diffusion XL's refiner"):
        load({"model": "sdxl-refiner", "controlnet": "hub:a/b"})
