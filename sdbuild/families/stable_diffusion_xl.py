"""Stable Diffusion XL: the base model with its fine-tunes and few-step models, and the refiner."""

from dataclasses import replace

from sdbuild.families.controlnet import controlled, controlnet
from sdbuild.families.nouns import Component, Family, Port
from sdbuild.families.stable_diffusion import STABLE_DIFFUSION

_TEXT_ENCODER = STABLE_DIFFUSION.component("text_encoder")
_UNET = STABLE_DIFFUSION.component("unet")


def _text_encoder(component: Component) -> Component:
    """Returns a text encoder with the ports that XL's U-Net wants to be fed from."""
    return replace(
        component, network="text_encoder_xl", settings=component.settings - {"clip_skip"},
        outputs=(
            Port(name="hidden_embeds", shape=(1, "S", "D"), dtype="fp32",
                 meaning="The embedding of each token, from the last layer but one."),
            Port(name="pooled_outputs", shape=(1, "P"), dtype="fp32",
                 meaning="The embedding of the end token."),
        ),
    )


def _unet(numbers: int, meaning: str) -> Component:
    """Returns a U-Net that takes so many numbers about the picture, and a pooled embedding."""
    return replace(
        _UNET, network="unet_xl",
        inputs=(
            *_UNET.inputs,
            Port(name="time_ids", shape=("B", numbers), dtype="fp16", meaning=meaning),
            Port(name="text_embeds", shape=("B", "P"), dtype="fp16",
                 meaning="The pooled embedding of the second text encoder."),
        ),
    )


_ENCODER_1 = _text_encoder(_TEXT_ENCODER)
_ENCODER_2 = replace(
    _text_encoder(_TEXT_ENCODER), name="text_encoder_2", bundle_name="TextEncoder2",
    folder="text_encoder_2", drop="", sidecars=("tokenizer_2",),
)
_BASE = _unet(6, "Height and width of the original, top and left of the crop, height and width "
                 "of the picture, in pixels.")
_REFINER = _unet(5, "Height and width of the original, top and left of the crop, in pixels, and "
                    "the aesthetic score.")
_VAE = tuple(
    # Its residual stream passes 65504, the largest number of fp16, and the picture comes out black.
    replace(STABLE_DIFFUSION.component(name), precision="fp32")
    for name in ("vae_decoder", "vae_encoder")
)

_BESIDE_BASE = replace(_REFINER, name="refiner", bundle_name="UnetRefiner", source="refiner_source",
                       comes_with="refiner_source", family="sdxl-refiner",
                       settings=_REFINER.settings - {"lora"})
"""Hosts use a refiner that is there without being asked, so that nobody gets it unasked. LoRAs are
made for the base model, and do not fit it."""

STABLE_DIFFUSION_XL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    components=(_ENCODER_1, _ENCODER_2, _BASE, *_VAE, _BESIDE_BASE, controlled(_BASE),
                controlnet(_BASE)),
    drawing=("text_encoder", "text_encoder_2", "unet", "vae_decoder"),
    batches=(2,),
)

STABLE_DIFFUSION_XL_REFINER = Family(
    name="sdxl-refiner",
    title="Stable Diffusion XL's refiner",
    components=(_ENCODER_2, _REFINER, *_VAE),
    drawing=(),  # it finishes pictures of another model
    batches=(2,),
)

