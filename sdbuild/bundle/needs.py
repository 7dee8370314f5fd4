"""Requirements and limits of single hosts, as functions that yield a reason for each one not met.

Rules that Apple's Swift package has are in `sdbuild/bundle/rules/`; hosts built on it share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sdbuild.bundle.bundle_reader import SD3, SDXL, Compiled, Opened
from sdbuild.bundle.rules.apps import APP_RULES
from sdbuild.bundle.rules.settings import SCALES, setting
from sdbuild.bundle.rules.shapes import present
from sdbuild.bundle.rules.unets import inputs

Need = Callable[[Opened], Iterator[str]]


def whole_unet(bundle: Opened) -> Iterator[str]:
    """A U-Net that is not in chunks."""
    if len(bundle.unet) > 1:
        yield "the U-Net is in chunks, and it loads whole ones"


def whole_controlled_unet(bundle: Opened) -> Iterator[str]:
    """A controlled U-Net that is not in chunks, if there are ControlNets."""
    if len(bundle.denoiser("ControlledUnet")) > 1:
        yield "no ControlNets: ControlledUnet is in chunks"


def no_controlnet_folder(bundle: Opened) -> Iterator[str]:
    """ControlNets in another folder."""
    if any(name.startswith("controlnet/") for name in bundle.models):
        yield "no ControlNets: a folder controlnet in the bundle hides the app's own"


def no_controlnets(bundle: Opened) -> Iterator[str]:
    """A bundle without ControlNets."""
    if bundle.nets or bundle.denoiser("ControlledUnet"):
        yield "no ControlNets: it loads none of this form"


def no_starting_image(bundle: Opened) -> Iterator[str]:
    """A VAE encoder, in a family that can start from an image."""
    if "VAEEncoder" not in bundle.models:
        yield "no image to image: there is no VAEEncoder"
    elif bundle.family == SD3:
        yield "image to image crashes: its scheduler for SD 3 has no alphas"


def text_to_image_alone(bundle: Opened) -> Iterator[str]:
    """A bundle without a VAE encoder, which would be of no use."""
    if "VAEEncoder" in bundle.models:
        yield "no image to image: it has no use for VAEEncoder"


def a_batch_of_two(bundle: Opened) -> Iterator[str]:
    """A U-Net of batch two."""
    for model in bundle.unet[:1]:
        for feature in present(model.inputs, "sample"):
            if feature.shape[:1] != (2,):
                yield f"its U-Net has a batch of {feature.shape[0]}, and it feeds two"


def as_many_channels_out(bundle: Opened) -> Iterator[str]:
    """A U-Net that is not one for inpainting."""
    for model in bundle.unet[:1]:
        for feature in present(model.inputs, "sample"):
            if feature.shape[1:2] == (9,):
                yield "inpainting (nine channels), which it does not feed"


def seventy_seven_tokens(bundle: Opened) -> Iterator[str]:
    """A U-Net that takes prompts of 77 tokens."""
    for model in bundle.unet[:1]:
        for feature in present(model.inputs, "encoder_hidden_states"):
            if feature.shape[3:] != (77,):
                yield f"prompts of {feature.shape[-1]} tokens, and it feeds 77"


def no_extra_inputs(bundle: Opened) -> Iterator[str]:
    """A U-Net without the embedding of a guidance scale."""
    for models in filter(None, [bundle.unet]):
        if "timestep_cond" in inputs(models):
            yield "its U-Net takes timestep_cond, which it does not feed"


def fp16_unet(bundle: Opened) -> Iterator[str]:
    """A U-Net whose inputs are declared fp16."""
    for model in bundle.unet[:1]:
        yield from _fp16(model)


def fp16_vae(bundle: Opened) -> Iterator[str]:
    """A VAE decoder whose input is declared fp16."""
    for model in bundle.each("VAEDecoder"):
        yield from _fp16(model)


def noise_by_name(bundle: Opened) -> Iterator[str]:
    """A U-Net that gives `noise_pred`."""
    for model in bundle.unet[-1:]:
        if "noise_pred" not in model.outputs:
            yield f"{model.file} gives no noise_pred"


def ports_by_name(bundle: Opened) -> Iterator[str]:
    """Text encoders that take `input_ids`, and a VAE decoder that turns `z` into `image`."""
    for model in bundle.each("TextEncoder", "TextEncoder2"):
        if "input_ids" not in model.inputs:
            yield f"{model.file} takes no input_ids"
    for model in bundle.each("VAEDecoder"):
        if "z" not in model.inputs or "image" not in model.outputs:
            yield f"{model.file} does not turn z into image"


def encoder_takes_z(bundle: Opened) -> Iterator[str]:
    """A VAE encoder whose input is called `z`."""
    for model in bundle.each("VAEEncoder"):
        if "z" not in model.inputs:
            yield "it crashes: the input of VAEEncoder is not called z"


def last_hidden_state_and_pooled(bundle: Opened) -> Iterator[str]:
    """Text encoders that give `last_hidden_state` and `pooled_outputs`, also those of SDXL."""
    for model in bundle.each("TextEncoder", "TextEncoder2"):
        missing = {"last_hidden_state", "pooled_outputs"} - set(model.outputs)
        if missing:
            yield f"it crashes: {model.file} gives no {' and no '.join(sorted(missing))}"


def channels_first(bundle: Opened) -> Iterator[str]:
    """`encoder_hidden_states` of rank four in the first U-Net."""
    for model in bundle.unet[:1]:
        for feature in present(model.inputs, "encoder_hidden_states"):
            if len(feature.shape) != 4:
                yield "it crashes: encoder_hidden_states are not of rank four"


def metadata(bundle: Opened) -> Iterator[str]:
    """`metadata.json` as apps read it."""
    found = [violation for rule in APP_RULES for violation in rule.violations(bundle)]
    for violation in found[:1]:
        yield f"{violation.where}: {violation.found}"


def prediction_of_noise(bundle: Opened) -> Iterator[str]:
    """A U-Net that predicts noise."""
    found = bundle.manifest.get("prediction_type", "epsilon")
    if found != "epsilon" and bundle.family != SD3:
        yield f"black or poor images: it predicts {str(found)[:20]}, not noise"


def more_than_one_step_of_xl(bundle: Opened) -> Iterator[str]:
    """Settings of more than one step, if it is SDXL."""
    if bundle.family == SDXL and setting(bundle, "steps", 2) == 1:
        yield "it crashes at one step: it always spaces steps as Karras does"


def safe_pictures(bundle: Opened) -> Iterator[str]:
    """A bundle without a safety checker."""
    if "SafetyChecker" in bundle.models:
        yield "it crashes at an image that SafetyChecker flags"


def unread_safety_checker(bundle: Opened) -> Iterator[str]:
    """A bundle without a safety checker."""
    if "SafetyChecker" in bundle.models:
        yield "no safety checker: it never runs it"


def one_size(bundle: Opened) -> Iterator[str]:
    """A single size."""
    sizes = bundle.manifest.get("sizes")
    if isinstance(sizes, list) and len(sizes) > 1:
        yield (f"images of {str(sizes[0]).strip('[]').replace(', ', 'x')} alone, the first of "
               f"{len(sizes)} sizes: it selects no function of a model")


def no_refiner(bundle: Opened) -> Iterator[str]:
    """A bundle without a refiner, or one that is wanted for every picture."""
    if bundle.denoiser("UnetRefiner"):
        yield "UnetRefiner takes over after 80 % of the steps, asked or not"


def scales(**by_family: float) -> Need:
    """A need of latents that are scaled as the host assumes, by family."""
    def need(bundle: Opened) -> Iterator[str]:
        """Latents that are scaled as it assumes."""
        own = bundle.manifest.get("scale_factor", SCALES[bundle.family])
        used = by_family.get(bundle.family, 0.18215)
        if isinstance(own, int | float) and own != used:
            yield f"wrong colours: latents are scaled by {own}, and it takes {used}"
    return need


def schedulers(*known: str) -> Need:
    """A need of settings that the host has a scheduler for."""
    def need(bundle: Opened) -> Iterator[str]:
        """Settings of a scheduler that it has."""
        draw = bundle.manifest.get("draw")
        found = draw.get("scheduler", known[0]) if isinstance(draw, dict) else known[0]
        if bundle.family != SD3 and found not in known:
            yield f"it has no scheduler {str(found)[:20]}, only {' and '.join(known)}"
    return need


def _fp16(model: Compiled) -> Iterator[str]:
    wrong = [feature for feature in model.inputs.values() if feature.dtype != "fp16"]
    for feature in wrong[:1]:
        yield f"{model.file} {feature.name} is {feature.dtype}, and it feeds fp16"
