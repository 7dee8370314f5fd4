"""Quantized activations: what a recipe may ask for, and which steps it has then."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load

WORDS = {"activations": "8", "target": "iOS17"}


def steps(**words):
    return plan(load(words)).steps


def test_the_unets_weights_are_integers_and_those_of_text_encoders_keep_their_palettes():
    found = steps(**WORDS)

    assert found["quantize:unet"].params["nbits"] == 8
    assert {i.step for i in found["quantize:unet"].inputs.values()} == {
        "convert:unet", "observe:unet"}
    assert {i.step for i in found["chunk:unet"].inputs.values()} == {"quantize:unet"}
    assert found["palettize:text_encoder"].params == {"nbits": 6}
    assert not {"palettize:unet", "calibrate:unet", "assign:unet"} & found.keys()
    parts = found["bundle"].params["components"]
    assert (parts["unet"]["nbits"], parts["unet"]["activations"]) == (8, 8)
    assert "activations" not in parts["text_encoder"]


def test_activations_are_observed_on_the_recipes_prompts_whatever_quant_says():
    six, four = steps(**WORDS), steps(**WORDS, quant="4")

    assert six["observe:unet"] == four["observe:unet"]
    assert six["quantize:unet"] == four["quantize:unet"]
    assert six["observe:unet"].params["requests"]
    assert {i.step for i in six["observe:unet"].inputs.values()} == {
        "download:unet", "download:text_encoder", "download:resources", "convert:unet"}


def test_without_them_no_step_knows_of_them():
    found = steps(target="iOS17")

    assert found == steps(target="iOS17", activations="none")
    assert not [name for name in found if name.startswith(("observe", "quantize"))]
    assert "activations" not in str([step.params for step in found.values()])


def test_calibrated_bits_are_for_the_text_encoder_then():
    found = steps(**WORDS, quant="4.0")

    assert "assign:text_encoder" in found
    assert "quantize:unet" in found
    assert not {"calibrate:unet", "assign:unet"} & found.keys()


@pytest.mark.parametrize(("words", "word"), [
    ({}, "6bit-w8a8"), ({"quant": "none"}, "w8a8"), ({"palettize": "unet"}, "w8a8"),
])
def test_a_bundle_is_called_by_them(words, word):
    assert f"-original-{word}-2chunks-iOS17" in load(WORDS | words).variant


@pytest.mark.parametrize(("words", "said"), [
    ({"target": "iOS16"}, "activations=8 with target=iOS16: quantized activations came with"),
    ({"target": "macOS13"}, "activations=8 with target=iOS16"),
    ({"activations": "4"}, "activations is '4', expected"),
    ({"size_mb": "2"}, "activations=8 with size_mb=2: the U-Net's weights have 8 bits"),
    ({"quality": "40"}, "activations=8 with quality=40"),
    ({"mixed": "unet.a*:4"}, "activations=8 with mixed=unet.a*:4"),
    ({"components": "text_encoder,vae_decoder"}, "activations=8: components lacks unet"),
    ({"components": "unet,vae_decoder"}, "activations=8: components lacks text_encoder"),
    ({"size": "128x128,192x128", "target": "iOS18"}, "activations=8 with 2 sizes"),
    ({"model": "sd-3-medium"}, "activations=8 for Stable Diffusion 3: only activations of a U-Net"),
    ({"model": "sdxl-refiner"}, "only activations of a U-Net that generates images by itself"),
    ({"model": "tiny-emoji-control"}, "activations=8 with controlnet: a U-Net for ControlNets"),
])
def test_what_has_no_quantized_activations_is_refused(words, said):
    with pytest.raises(RecipeError) as refused:
        load(WORDS | words)

    assert said in str(refused.value)
    assert refused.value.hint
