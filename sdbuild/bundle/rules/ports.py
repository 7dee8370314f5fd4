"""Rules of what goes in and out of each model: names, ranks, shapes and declared types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sdbuild.bundle.bundle_reader import Compiled, Feature, Opened
from sdbuild.bundle.rules.rule import ERROR, SWIFT, WARNING, Finding, names, rule

Shape = tuple[int | None, ...]
"""A shape of which only some sizes matter."""

UNET_INPUTS = ("sample", "timestep", "encoder_hidden_states")
_UNET_SHAPES: Mapping[str, Shape] = {
    "sample": (None, 4, None, None),
    "timestep": (None,),
    "encoder_hidden_states": (None, None, 1, None),
}
_CHECKER_INPUTS: Mapping[str, Shape] = {
    "clip_input": (1, 3, 224, 224), "images": (1, 512, 512, 3), "adjustment": (1,),
}


@rule(ERROR, SWIFT, "feeds the first input, whatever its name, and no other: prompts fail.")
def text_encoder_has_one_input(bundle: Opened) -> Iterator[Finding]:
    """The text encoder takes the tokens and nothing else."""
    for model in bundle.each("TextEncoder"):
        yield from _single(model, "inputs", model.inputs)


@rule(ERROR, SWIFT, "reads the last dimension as the length of a prompt: prompts fail.")
def text_encoder_takes_tokens(bundle: Opened) -> Iterator[Finding]:
    """The text encoder's input is (1, tokens)."""
    for model in bundle.each("TextEncoder"):
        yield from _shaped(model, list(model.inputs.values())[:1], (1, None))


@rule(ERROR, SWIFT, "unwraps it by this name and crashes at the first prompt.")
def text_encoder_gives_last_hidden_state(bundle: Opened) -> Iterator[Finding]:
    """The text encoder gives `last_hidden_state`, (1, tokens, width)."""
    for model in bundle.each("TextEncoder"):
        found = model.outputs.get("last_hidden_state")
        if found is None:
            yield Finding(model.file, f"outputs {names(model.outputs)}", "last_hidden_state")
        else:
            yield from _shaped(model, [found], (1, None, None))


@rule(ERROR, SWIFT, "looks it up in the first model for the size of the latents, and crashes.")
def unet_begins_with_sample(bundle: Opened) -> Iterator[Finding]:
    """The U-Net, or its first chunk, takes `sample`."""
    for model in bundle.unet[:1]:
        if "sample" not in model.inputs:
            yield Finding(model.file, f"inputs {names(model.inputs)}", "sample among them")


@rule(ERROR, SWIFT, "feeds these: with another predictions fail, without one images are wrong.")
def unet_takes_three_inputs(bundle: Opened) -> Iterator[Finding]:
    """The U-Net takes `sample`, `timestep` and `encoder_hidden_states`, and nothing else."""
    found = {name for model in bundle.unet[:1] for name in model.inputs}
    found |= {name for model in bundle.unet[1:] for name in model.inputs} & set(UNET_INPUTS)
    if bundle.unet and found != set(UNET_INPUTS):
        yield Finding(bundle.unet[0].file, f"inputs {names(found)}", names(UNET_INPUTS))


@rule(ERROR, SWIFT, "feeds arrays of these shapes, whatever is declared, and predictions fail.")
def unet_inputs_have_their_shapes(bundle: Opened) -> Iterator[Finding]:
    """The U-Net's inputs are (B, 4, h, w), (B) and (B, width, 1, tokens)."""
    for model in bundle.unet:
        for name, shape in _UNET_SHAPES.items():
            yield from _shaped(model, [f for f in [model.inputs.get(name)] if f], shape)


@rule(ERROR, SWIFT, "uses whichever output comes first as the noise, so it may use another.")
def unet_has_one_output(bundle: Opened) -> Iterator[Finding]:
    """The U-Net, or its last chunk, has one output."""
    for model in bundle.unet[-1:]:
        yield from _single(model, "outputs", model.outputs)


@rule(ERROR, SWIFT, "uses it as the noise of each latent, and generates noise or crashes.")
def unet_output_is_like_sample(bundle: Opened) -> Iterator[Finding]:
    """The U-Net's output has the shape of `sample`."""
    for model in bundle.unet[-1:]:
        sample = bundle.unet[0].inputs.get("sample")
        if sample is not None and len(model.outputs) == 1:
            yield from _shaped(model, list(model.outputs.values()), sample.shape)


@rule(ERROR, SWIFT, "feeds the first input and reads the first output: it may be another.")
def vaes_have_one_input_and_one_output(bundle: Opened) -> Iterator[Finding]:
    """VAE decoder and encoder have one input and one output each."""
    for model in bundle.each("VAEDecoder", "VAEEncoder"):
        yield from _single(model, "inputs", model.inputs)
        yield from _single(model, "outputs", model.outputs)


@rule(ERROR, SWIFT, "expects an image of rank four with three channels, and crashes.")
def vae_decoder_gives_a_picture(bundle: Opened) -> Iterator[Finding]:
    """The VAE decoder turns (1, 4, h, w) into (1, 3, H, W)."""
    for model in bundle.each("VAEDecoder"):
        yield from _shaped(model, list(model.inputs.values())[:1], (1, 4, None, None))
        yield from _shaped(model, list(model.outputs.values())[:1], (1, 3, None, None))


@rule(ERROR, SWIFT, "reads channels 0 to 3 as the mean, 4 to 7 as the log-variance, and crashes.")
def vae_encoder_gives_mean_and_variance(bundle: Opened) -> Iterator[Finding]:
    """The VAE encoder turns (1, 3, H, W) into (1, 8, h, w)."""
    for model in bundle.each("VAEEncoder"):
        yield from _shaped(model, list(model.inputs.values())[:1], (1, 3, None, None))
        yield from _shaped(model, list(model.outputs.values())[:1], (1, 8, None, None))


@rule(ERROR, SWIFT, "feeds these whatever is declared and unwraps `has_nsfw_concepts`: it crashes.")
def safety_checker_takes_512_pixels(bundle: Opened) -> Iterator[Finding]:
    """A safety checker takes (1, 3, 224, 224) and (1, 512, 512, 3), whatever the picture's size."""
    for model in bundle.each("SafetyChecker"):
        for name, shape in _CHECKER_INPUTS.items():
            if name in model.inputs:
                yield from _shaped(model, [model.inputs[name]], shape)
        if set(model.inputs) != set(_CHECKER_INPUTS):
            yield Finding(model.file, f"inputs {names(model.inputs)}", names(_CHECKER_INPUTS))
        if "has_nsfw_concepts" not in model.outputs:
            yield Finding(model.file, f"outputs {names(model.outputs)}", "has_nsfw_concepts")


@rule(ERROR, SWIFT, "feeds token numbers as fp32, and predictions may fail on another type.")
def text_encoder_takes_fp32(bundle: Opened) -> Iterator[Finding]:
    """The text encoder's input is declared fp32."""
    for model in bundle.each("TextEncoder"):
        yield from _typed(model, model.inputs.values(), ("fp32",))


@rule(ERROR, SWIFT, "feeds arrays of fp32, and predictions may fail where these are not floats.")
def inputs_are_floats(bundle: Opened) -> Iterator[Finding]:
    """Inputs of U-Net, VAEs and safety checker are declared fp16 or fp32."""
    for model in (*bundle.unet, *bundle.each("VAEDecoder", "VAEEncoder", "SafetyChecker")):
        yield from _typed(model, model.inputs.values(), ("fp16", "fp32"))


@rule(ERROR, SWIFT, "reads the numbers as fp32 without a conversion, and crashes on others.")
def vae_outputs_are_fp32(bundle: Opened) -> Iterator[Finding]:
    """Outputs of the VAEs are declared fp32."""
    for model in bundle.each("VAEDecoder", "VAEEncoder"):
        yield from _typed(model, model.outputs.values(), ("fp32",))


@rule(WARNING, SWIFT, "converts other types, at a cost; bundles in the field have fp32 here.")
def other_outputs_are_fp32(bundle: Opened) -> Iterator[Finding]:
    """Outputs of text encoder and U-Net are declared fp32."""
    for model in (*bundle.each("TextEncoder"), *bundle.unet[-1:]):
        yield from _typed(model, model.outputs.values(), ("fp32",))


def _single(model: Compiled, kind: str, found: Mapping[str, Feature]) -> Iterator[Finding]:
    if len(found) != 1:
        yield Finding(model.file, f"{kind} {names(found)}", "exactly one")


def _shaped(model: Compiled, features: Sequence[Feature], shape: Shape) -> Iterator[Finding]:
    """A finding for each feature whose rank or sizes are others than those of `shape`."""
    for feature in features:
        is_same_rank = len(feature.shape) == len(shape)
        pairs = zip(shape, feature.shape, strict=False)
        if not is_same_rank or any(size not in (None, found) for size, found in pairs):
            wanted = ", ".join("…" if size is None else str(size) for size in shape)
            yield Finding(f"{model.file} {feature.name}", str(feature.shape), f"({wanted})")


def _typed(
    model: Compiled, features: Iterable[Feature], dtypes: Sequence[str]
) -> Iterator[Finding]:
    for feature in features:
        if feature.dtype not in dtypes:
            yield Finding(f"{model.file} {feature.name}", feature.dtype, " or ".join(dtypes))


PORTS = (
    text_encoder_has_one_input,
    text_encoder_takes_tokens,
    text_encoder_gives_last_hidden_state,
    unet_begins_with_sample,
    unet_takes_three_inputs,
    unet_inputs_have_their_shapes,
    unet_has_one_output,
    unet_output_is_like_sample,
    vaes_have_one_input_and_one_output,
    vae_decoder_gives_a_picture,
    vae_encoder_gives_mean_and_variance,
    safety_checker_takes_512_pixels,
    text_encoder_takes_fp32,
    inputs_are_floats,
    vae_outputs_are_fp32,
    other_outputs_are_fp32,
)
