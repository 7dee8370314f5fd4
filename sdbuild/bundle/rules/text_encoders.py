"""Rules of the text encoders: CLIP's, the multilingual projection, and T5."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SUFFIX, Compiled, Opened
from sdbuild.bundle.rules.rule import (
    ERROR,
    SWIFT,
    TWO_ENCODERS,
    WARNING,
    Finding,
    names,
    rule,
)
from sdbuild.bundle.rules.shapes import fits, required, shaped, single, typed

CLIPS = ("TextEncoder", "TextEncoder2")
PROJECTION = "MultilingualTextEncoderProjection"
PROJECTED_TOKENS = 256
_PROJECTED_WIDTH = 512
"""The width of Apple's contextual embeddings, which are of shape (256 tokens, 512)."""
T5 = "TextEncoderT5"
T5_READ = 77
"""The tokens of T5 that hosts read."""


@rule(ERROR, SWIFT, "feeds one input, at random if there are more, and no other: prompts fail.")
def text_encoders_have_one_input(bundle: Opened) -> Iterator[Finding]:
    """A text encoder takes the tokens and nothing else."""
    for model in _clips(bundle):
        yield from single(model, "inputs", model.inputs)


@rule(ERROR, SWIFT, "reads the last dimension as the length of a prompt, and crashes if there are "
      "more numbers than that.")
def text_encoders_take_tokens(bundle: Opened) -> Iterator[Finding]:
    """A text encoder's input is (1, tokens), or as many numbers in another rank."""
    for model in _clips(bundle):
        for feature in list(model.inputs.values())[:1]:
            if not feature.shape or any(size != 1 for size in feature.shape[:-1]):
                yield Finding(f"{model.file} {feature.name}", str(feature.shape), "(1, tokens)")


@rule(ERROR, SWIFT, "unwraps it by this name and crashes at the first prompt.", families=(SD,))
def text_encoder_gives_last_hidden_state(bundle: Opened) -> Iterator[Finding]:
    """The text encoder gives `last_hidden_state`, (1, tokens, width)."""
    for model in bundle.each("TextEncoder"):
        yield from _gives(model, "last_hidden_state", (1, "tokens", "width"))


@rule(ERROR, SWIFT, "unwraps these by name, of both encoders, and crashes at the first prompt.",
      families=TWO_ENCODERS)
def text_encoders_give_hidden_and_pooled(bundle: Opened) -> Iterator[Finding]:
    """Each text encoder gives `hidden_embeds`, (1, tokens, width), and `pooled_outputs`,
    (1, width); SDXL has no use for the first one's."""
    for model in _clips(bundle):
        yield from _gives(model, "hidden_embeds", (1, "tokens", "width"))
        is_dropped = bundle.family != SD3 and model.file == f"{CLIPS[0]}{SUFFIX}"
        if not is_dropped or "pooled_outputs" not in model.outputs:
            yield from _gives(model, "pooled_outputs", (1, "width"))


@rule(WARNING, SWIFT, "feeds token numbers as fp32, as all bundles in the field declare them; how "
      "Core ML takes another type is not known.")
def text_encoders_take_fp32(bundle: Opened) -> Iterator[Finding]:
    """The inputs of text encoders are declared fp32."""
    for model in bundle.each(*CLIPS, T5):
        yield from typed(model, model.inputs.values(), ("fp32",))


@rule(WARNING, SWIFT, "converts other types, at a cost; bundles in the field have fp32 here.")
def text_encoders_give_fp32(bundle: Opened) -> Iterator[Finding]:
    """The outputs of text encoders are declared fp32."""
    for model in bundle.each(*CLIPS, T5):
        yield from typed(model, model.outputs.values(), ("fp32",))


@rule(ERROR, SWIFT, "feeds embeddings of this shape, and takes what comes out as it is.",
      families=(SD,))
def projection_turns_embeddings_into_hidden_states(bundle: Opened) -> Iterator[Finding]:
    """A multilingual projection turns (1, 256, 512) into (1, width, 1, 256)."""
    for model in bundle.each(PROJECTION):
        yield from single(model, "inputs", model.inputs)
        yield from single(model, "outputs", model.outputs)
        yield from shaped(model, list(model.inputs.values())[:1],
                          (1, PROJECTED_TOKENS, _PROJECTED_WIDTH))
        yield from shaped(model, list(model.outputs.values())[:1],
                          (1, "width", 1, PROJECTED_TOKENS))


@rule(ERROR, SWIFT, "feeds both and no more, reads the length from either, and loses the mask, "
      "crashes or fails.", families=(SD3,))
def t5_takes_tokens_and_their_mask(bundle: Opened) -> Iterator[Finding]:
    """T5 takes `input_ids` and `attention_mask`, both (1, tokens)."""
    for model in bundle.each(T5):
        wanted = {"input_ids", "attention_mask"}
        if not required(model.inputs) <= wanted <= set(model.inputs):
            yield Finding(model.file, f"inputs {names(model.inputs)}", names(wanted))
        yield from shaped(model, model.inputs.values(), (1, "tokens"))
        if len({feature.shape for feature in model.inputs.values()}) > 1:
            yield Finding(f"{model.file} attention_mask", "another length than input_ids", "one")


@rule(ERROR, SWIFT, "unwraps it by this name, reads 77 tokens of it, and crashes if there are "
      "fewer.", families=(SD3,))
def t5_gives_hidden_states(bundle: Opened) -> Iterator[Finding]:
    """T5 gives `encoder_hidden_states`, (1, width, 1, tokens) of at least 77 tokens."""
    for model in bundle.each(T5):
        yield from _gives(model, "encoder_hidden_states", (1, "width", 1, "tokens"))
        found = model.outputs.get("encoder_hidden_states")
        if found and fits(found.shape, (1, "", 1, "")) and found.shape[3] < T5_READ:
            yield Finding(f"{model.file} {found.name}", f"{found.shape[3]} tokens",
                          f"at least {T5_READ}")


def _clips(bundle: Opened) -> Iterator[Compiled]:
    """Yields the encoders that are called: a refiner has no use for the first, though it may be
    there."""
    yield from bundle.each(*CLIPS[bundle.family == REFINER:])


def _gives(model: Compiled, name: str, shape: tuple[int | str, ...]) -> Iterator[Finding]:
    found = model.outputs.get(name)
    if found is None:
        yield Finding(model.file, f"outputs {names(model.outputs)}", name)
    else:
        yield from shaped(model, [found], shape)


TEXT_ENCODERS = (
    text_encoders_have_one_input,
    text_encoders_take_tokens,
    text_encoder_gives_last_hidden_state,
    text_encoders_give_hidden_and_pooled,
    text_encoders_take_fp32,
    text_encoders_give_fp32,
    projection_turns_embeddings_into_hidden_states,
    t5_takes_tokens_and_their_mask,
    t5_gives_hidden_states,
)
