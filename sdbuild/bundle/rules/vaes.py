"""Rules of the VAE's decoder and encoder, and of the safety checker, which looks at pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.bundle.bundle_reader import SD, Opened
from sdbuild.bundle.rules.rule import ERROR, SWIFT, UNETS, WARNING, Finding, names, rule
from sdbuild.bundle.rules.shapes import Shape, present, required, shaped, single, typed

VAES = ("VAEDecoder", "VAEEncoder")
_CHECKER_INPUTS: Mapping[str, Shape] = {"images": (1, 512, 512, 3), "adjustment": (1,)}


@rule(ERROR, SWIFT, "feeds one input and reads one output, at random if there are more.")
def vaes_have_one_input_and_one_output(bundle: Opened) -> Iterator[Finding]:
    """VAE decoder and encoder have one input and one output each."""
    for model in bundle.each(*VAES):
        yield from single(model, "inputs", model.inputs)
        yield from single(model, "outputs", model.outputs)


@rule(ERROR, SWIFT, "expects an image of rank four with three channels, and fails.")
def vae_decoder_gives_a_picture(bundle: Opened) -> Iterator[Finding]:
    """The VAE decoder turns (1, channels, h, w) into (1, 3, H, W)."""
    for model in bundle.each("VAEDecoder"):
        yield from shaped(model, list(model.inputs.values())[:1], (1, "channels", "h", "w"))
        yield from shaped(model, list(model.outputs.values())[:1], (1, 3, "H", "W"))


@rule(ERROR, SWIFT, "reads channels 0 to 3 as the mean, 4 to 7 as the log-variance, and crashes.",
      families=UNETS)
def vae_encoder_gives_mean_and_variance(bundle: Opened) -> Iterator[Finding]:
    """The VAE encoder turns (1, 3, H, W) into (1, 8, h, w)."""
    for model in bundle.each("VAEEncoder"):
        yield from shaped(model, list(model.inputs.values())[:1], (1, 3, "H", "W"))
        yield from shaped(model, list(model.outputs.values())[:1], (1, 8, "h", "w"))


@rule(ERROR, SWIFT, "refuses a starting image of any size but the default one; MochiDiffusion "
      "crashes if `metadata.json` shows fewer than four sizes.")
def vae_encoder_has_one_size(bundle: Opened) -> Iterator[Finding]:
    """The VAE encoder's input has a fixed shape."""
    for model in bundle.each("VAEEncoder"):
        for feature in model.inputs.values():
            if feature.is_flexible:
                yield Finding(f"{model.file} {feature.name}", "a flexible shape", "one size")


@rule(WARNING, SWIFT, "converts other types, at a cost; bundles in the field have fp32 here.")
def vae_outputs_are_fp32(bundle: Opened) -> Iterator[Finding]:
    """Outputs of the VAEs are declared fp32."""
    for model in bundle.each(*VAES):
        yield from typed(model, model.outputs.values(), ("fp32",))


@rule(ERROR, SWIFT, "feeds arrays, and predictions fail where a model takes none.")
def ports_are_arrays(bundle: Opened) -> Iterator[Finding]:
    """All inputs and outputs are arrays of numbers."""
    for model in bundle.models.values():
        for feature in (*model.inputs.values(), *model.outputs.values()):
            if feature.dtype.endswith("Type"):
                yield Finding(f"{model.file} {feature.name}", feature.dtype, "an array")


@rule(ERROR, SWIFT, "looks the picture's input up by this name and takes its sides from it, feeds "
      "the others whatever is declared, and unwraps `has_nsfw_concepts`: it fails or crashes.",
      families=(SD,))
def safety_checker_takes_512_pixels(bundle: Opened) -> Iterator[Finding]:
    """A safety checker takes `clip_input`, (1, 3, s, s); if it takes `images` they are
    (1, 512, 512, 3), whatever the picture's size, and `adjustment` is (1)."""
    for model in bundle.each("SafetyChecker"):
        for name, shape in _CHECKER_INPUTS.items():
            yield from shaped(model, present(model.inputs, name), shape)
        known = {"clip_input", *_CHECKER_INPUTS}
        if "clip_input" not in model.inputs or required(model.inputs) - known:
            yield Finding(model.file, f"inputs {names(model.inputs)}", names(known))
        if "has_nsfw_concepts" not in model.outputs:
            yield Finding(model.file, f"outputs {names(model.outputs)}", "has_nsfw_concepts")
        for feature in present(model.inputs, "clip_input"):
            if feature.shape[2:3] != feature.shape[3:]:
                yield Finding(f"{model.file} clip_input", str(feature.shape), "a square")
            yield from shaped(model, [feature], (1, 3, "s", "s"))


@rule(WARNING, SWIFT, "feeds arrays of fp32; how Core ML takes another type is not known.")
def pictures_are_floats(bundle: Opened) -> Iterator[Finding]:
    """Inputs of VAEs, safety checker and ControlNets are declared fp16 or fp32."""
    for model in (*bundle.each(*VAES, "SafetyChecker"), *bundle.nets):
        yield from typed(model, model.inputs.values(), ("fp16", "fp32"))


PICTURES = (
    vaes_have_one_input_and_one_output,
    vae_decoder_gives_a_picture,
    vae_encoder_gives_mean_and_variance,
    vae_encoder_has_one_size,
    vae_outputs_are_fp32,
    ports_are_arrays,
    safety_checker_takes_512_pixels,
    pictures_are_floats,
)
