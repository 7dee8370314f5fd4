"""Rules of the transformer of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.bundle.bundle_reader import SD3, Opened
from sdbuild.bundle.rules.files import TRANSFORMER
from sdbuild.bundle.rules.rule import ERROR, SWIFT, WARNING, Finding, names, rule
from sdbuild.bundle.rules.shapes import Shape, present, required, shaped, single, typed

LATENTS = "latent_image_embeddings"
_SHAPES: Mapping[str, Shape] = {
    LATENTS: (2, "channels", "h", "w"),
    "timestep": (2,),
    "token_level_text_embeddings": (2, "width", 1, 154),
    "pooled_text_embeddings": (2, "width", 1, 1),
}
_WIDTHS = {"token_level_text_embeddings": 4096, "pooled_text_embeddings": 2048}
_ZEROS = 2048
"""The width of the zeros that hosts put beside the hidden states of both CLIPs."""


@rule(ERROR, SWIFT, "looks the latents up by name, crashes without them, and feeds these and no "
      "more.", families=(SD3,))
def transformer_takes_what_is_fed(bundle: Opened) -> Iterator[Finding]:
    """The transformer takes `latent_image_embeddings`, `timestep`, `token_level_text_embeddings`
    and `pooled_text_embeddings`."""
    for model in bundle.each(TRANSFORMER):
        if not required(model.inputs) <= set(_SHAPES) <= set(model.inputs):
            yield Finding(model.file, f"inputs {names(model.inputs)}", names(_SHAPES))


@rule(ERROR, SWIFT, "doubles the batch at every guidance and feeds 77 tokens of CLIP and 77 of T5, "
      "or zeros for them: predictions fail.", families=(SD3,))
def transformers_inputs_have_their_shapes(bundle: Opened) -> Iterator[Finding]:
    """The transformer's inputs are (2, channels, h, w), (2), (2, width, 1, 154) and
    (2, width, 1, 1)."""
    for model in bundle.each(TRANSFORMER):
        for name, shape in _SHAPES.items():
            yield from shaped(model, present(model.inputs, name), shape)


@rule(ERROR, SWIFT, "uses one output as the velocity, at random if there are more.",
      families=(SD3,))
def transformer_has_one_output(bundle: Opened) -> Iterator[Finding]:
    """The transformer has one output, of the shape of the latents."""
    for model in bundle.each(TRANSFORMER):
        yield from single(model, "outputs", model.outputs)
        latents = model.inputs.get(LATENTS)
        if latents is not None and len(model.outputs) == 1:
            yield from shaped(model, model.outputs.values(), latents.shape)


@rule(ERROR, SWIFT, "has these widths built in, and makes zeros for what T5 would give: "
      "predictions fail on others.", families=(SD3,), by_checkpoint=True)
def transformer_takes_the_built_in_widths(bundle: Opened) -> Iterator[Finding]:
    """Embeddings of tokens are 4096 wide, those of the prompt 2048."""
    for model in bundle.each(TRANSFORMER):
        for name, width in _WIDTHS.items():
            for feature in present(model.inputs, name):
                if feature.shape[1:2] != (width,):
                    yield Finding(f"{model.file} {name}", str(feature.shape), f"{width} wide")
    for model in bundle.each("TextEncoderT5"):
        for feature in present(model.outputs, "encoder_hidden_states"):
            if feature.shape and feature.shape[1:2] != (4096,):
                yield Finding(f"{model.file} {feature.name}", str(feature.shape), "4096 wide")


@rule(ERROR, SWIFT, "puts what both CLIPs give side by side, and zeros beside the tokens: "
      "predictions fail.", families=(SD3,), by_checkpoint=True)
def clips_fit_the_transformer(bundle: Opened) -> Iterator[Finding]:
    """Both text encoders give 77 tokens; their widths add up to 2048, and so do the pooled ones."""
    both = tuple(bundle.each("TextEncoder", "TextEncoder2"))
    for name in ("hidden_embeds", "pooled_outputs"):
        found = [f for model in both for f in present(model.outputs, name)]
        widths = [f.shape[-1] for f in found if f.shape]
        if len(widths) == 2 and sum(widths) != _ZEROS:
            yield Finding(f"{both[0].file} {name}", f"widths of {widths[0]} and {widths[1]}",
                          f"{_ZEROS} in all")
    for model in both:
        for feature in present(model.outputs, "hidden_embeds"):
            yield from shaped(model, [feature], (1, 77, "width"))


@rule(WARNING, SWIFT, "feeds arrays of fp32; how Core ML takes another type is not known.",
      families=(SD3,))
def transformer_takes_floats(bundle: Opened) -> Iterator[Finding]:
    """Inputs of the transformer are declared fp16 or fp32, its output fp32."""
    for model in bundle.each(TRANSFORMER):
        yield from typed(model, model.inputs.values(), ("fp16", "fp32"))
        yield from typed(model, model.outputs.values(), ("fp32",))


TRANSFORMERS = (
    transformer_takes_what_is_fed,
    transformers_inputs_have_their_shapes,
    transformer_has_one_output,
    transformer_takes_the_built_in_widths,
    clips_fit_the_transformer,
    transformer_takes_floats,
)
