"""Rules of U-Nets: the plain one, the one with residuals, and the refiner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from sdbuild.bundle.bundle_reader import REFINER, SD, Compiled, Feature, Opened
from sdbuild.bundle.rules.rule import ERROR, SWIFT, UNETS, WARNING, XL, Finding, names, rule
from sdbuild.bundle.rules.shapes import (
    NUMBERS,
    Shape,
    present,
    required,
    shaped,
    single,
    typed,
)

RESIDUAL = re.compile(r"additional_residual_\d+")
FORMS = ("Unet", "ControlledUnet", "UnetRefiner")
_SHAPES: Mapping[str, Shape] = {
    "sample": ("batch", "channels", "h", "w"),
    "timestep": ("batch",),
    "encoder_hidden_states": ("batch", "width", 1, "tokens"),
}
_XL_SHAPES: Mapping[str, Shape] = {**_SHAPES, "text_embeds": ("batch", "width")}
_TIME_IDS: tuple[Shape, ...] = (2, 6), (12,)
_REFINER_TIME_IDS: tuple[Shape, ...] = ((2, 5),)


def wanted(bundle: Opened) -> frozenset[str]:
    """Returns the inputs that hosts feed to a U-Net of the bundle's family."""
    return frozenset(_SHAPES if bundle.family == SD else {*_XL_SHAPES, "time_ids"})


def is_residual(bundle: Opened, name: str) -> bool:
    """Whether ControlNets give a value of this name, which hosts hand on whatever it is called."""
    return RESIDUAL.fullmatch(name) is not None or any(name in net.outputs for net in bundle.nets)


def is_fed(bundle: Opened, form: str, name: str) -> bool:
    """Whether hosts feed an input of this name, rather than a first chunk that gives it."""
    return name in wanted(bundle) or (form == "ControlledUnet" and is_residual(bundle, name))


def forms(bundle: Opened) -> Iterator[tuple[str, tuple[Compiled, ...]]]:
    """Yields each U-Net that is there, whole or in chunks."""
    for form in FORMS:
        models = bundle.denoiser(form)
        if models:
            yield form, models


def inputs(models: tuple[Compiled, ...]) -> dict[str, Feature]:
    """Returns the inputs that a U-Net is fed: those of its chunks, without those that chunks before
    them give."""
    given: set[str] = set()
    found = dict(models[0].inputs)
    for before, model in pairwise(models):
        given |= before.outputs.keys()
        found |= {n: f for n, f in model.inputs.items() if n not in given and n not in found}
    return found


@rule(ERROR, SWIFT, "looks it up in the first model for the size of the latents, and crashes.",
      families=UNETS)
def unets_begin_with_sample(bundle: Opened) -> Iterator[Finding]:
    """A U-Net, or its first chunk, takes `sample`, of a shape that it declares."""
    yield from _begin_with(bundle, "sample")


@rule(ERROR, SWIFT, "looks it up in the first model to recognize a refiner, and crashes.",
      families=XL)
def unets_begin_with_time_ids(bundle: Opened) -> Iterator[Finding]:
    """The U-Net of SDXL, or its first chunk, takes `time_ids`."""
    yield from _begin_with(bundle, "time_ids")


@rule(ERROR, SWIFT, "feeds these and no more: with another one predictions fail, without one "
      "images are wrong and nothing says so.", families=UNETS, by_checkpoint=True)
def unets_take_what_is_fed(bundle: Opened) -> Iterator[Finding]:
    """A U-Net takes `sample`, `timestep` and `encoder_hidden_states`, that of SDXL `time_ids` and
    `text_embeds` as well, that for ControlNets `additional_residual_0` and so on, and no others."""
    for form, models in forms(bundle):
        found = inputs(models)
        missing = wanted(bundle) - set(found)
        extra = {n for n in required(models[0].inputs) if not is_fed(bundle, form, n)}
        if missing or extra:
            yield Finding(models[0].file, f"inputs {names(found)}", names(wanted(bundle)))


@rule(ERROR, SWIFT, "feeds arrays of these shapes, whatever is declared, and predictions fail.",
      families=UNETS)
def unets_inputs_have_their_shapes(bundle: Opened) -> Iterator[Finding]:
    """The U-Net's inputs are (B, channels, h, w), (B), (B, width, 1, tokens), and (B, width)."""
    shapes = _SHAPES if bundle.family == SD else _XL_SHAPES
    for _, models in forms(bundle):
        for model in models:
            for name, shape in shapes.items():
                yield from shaped(model, present(model.inputs, name), shape)


@rule(ERROR, SWIFT, "feeds (12) to a base model of rank one, else (2, 6), and (2, 5) to a refiner: "
      "predictions fail.", families=XL)
def time_ids_have_their_shape(bundle: Opened) -> Iterator[Finding]:
    """`time_ids` are (2, 6) or (12), those of a refiner (2, 5)."""
    for form, models in forms(bundle):
        is_refiner = form == "UnetRefiner" or bundle.family == REFINER
        for model in models:
            yield from shaped(model, present(model.inputs, "time_ids"),
                              *(_REFINER_TIME_IDS if is_refiner else _TIME_IDS))


@rule(ERROR, SWIFT, "uses one output as the noise, at random if there are more, and another one "
      "at each step.", families=UNETS)
def unets_have_one_output(bundle: Opened) -> Iterator[Finding]:
    """A U-Net, or its last chunk, has one output."""
    for _, models in forms(bundle):
        yield from single(models[-1], "outputs", models[-1].outputs)


@rule(ERROR, SWIFT, "uses it as the noise of each latent, and reads past its end or generates "
      "noise; channels of a mask and its picture are fed noise.", families=UNETS,
      by_checkpoint=True)
def unets_outputs_are_like_sample(bundle: Opened) -> Iterator[Finding]:
    """The U-Net's output has the shape of `sample`."""
    for _, models in forms(bundle):
        sample = inputs(models).get("sample")
        if sample is not None and len(models[-1].outputs) == 1:
            yield from shaped(models[-1], models[-1].outputs.values(), sample.shape)


@rule(ERROR, SWIFT, "feeds a batch of one, or of two, for all inputs: predictions fail on others.",
      families=(SD,))
def batch_is_one_or_two(bundle: Opened) -> Iterator[Finding]:
    """All inputs of the U-Net have the same batch, one or two."""
    for models in filter(None, [bundle.unet]):
        found = _batches(models)
        if len(set(found.values())) > 1 or not set(found.values()) <= {1, 2}:
            yield _batch_finding(found, "one or two, the same")


@rule(ERROR, SWIFT, "doubles the batch at every guidance, also at 0: predictions fail on others.",
      families=UNETS, by_recipe=True)
def batch_is_two(bundle: Opened) -> Iterator[Finding]:
    """All inputs of the U-Nets of SDXL, and of one for ControlNets, have a batch of two."""
    for form, models in forms(bundle):
        found = _batches(models)
        if (form != "Unet" or bundle.family != SD) and set(found.values()) - {2}:
            yield _batch_finding(found, "two in all")


@rule(WARNING, SWIFT, "feeds arrays of fp32; how Core ML takes another type is not known.",
      families=UNETS)
def unets_take_floats(bundle: Opened) -> Iterator[Finding]:
    """Inputs of U-Nets are declared fp16 or fp32."""
    for _, models in forms(bundle):
        for model in models:
            yield from typed(model, _arrays(model.inputs), ("fp16", "fp32"))


@rule(WARNING, SWIFT, "converts other types, at a cost; bundles in the field have fp32 here.",
      families=UNETS)
def unets_give_fp32(bundle: Opened) -> Iterator[Finding]:
    """Outputs of U-Nets are declared fp32."""
    for _, models in forms(bundle):
        yield from typed(models[-1], _arrays(models[-1].outputs), ("fp32",))


def _begin_with(bundle: Opened, name: str) -> Iterator[Finding]:
    """Findings for first models without an input; those of a refiner beside a base are not read."""
    for form, models in forms(bundle):
        if form == "UnetRefiner":
            continue
        if name not in models[0].inputs:
            yield Finding(models[0].file, f"inputs {names(models[0].inputs)}", f"{name} among them")
        elif not models[0].inputs[name].shape:
            yield Finding(f"{models[0].file} {name}", "no shape", "its default one")


def _arrays(ports: Mapping[str, Feature]) -> list[Feature]:
    """Returns the ports that are arrays of numbers; others are errors of another rule."""
    return [feature for feature in ports.values() if feature.dtype in NUMBERS]


def _batches(models: tuple[Compiled, ...]) -> dict[str, int]:
    """Returns the batch of each input that has one, by where it is declared."""
    return {
        f"{model.file} {name}": feature.shape[0]
        for model in models for name, feature in model.inputs.items()
        if feature.shape and (name in _XL_SHAPES or RESIDUAL.fullmatch(name))
    }


def _batch_finding(found: Mapping[str, int], expected: str) -> Finding:
    where, batches = next(iter(found)), ", ".join(f"{b} in {n}" for n, b in found.items())
    return Finding(where.partition(" ")[0], f"batches of {batches}", expected)


UNET_RULES = (
    unets_begin_with_sample,
    unets_begin_with_time_ids,
    unets_take_what_is_fed,
    unets_inputs_have_their_shapes,
    time_ids_have_their_shape,
    unets_have_one_output,
    unets_outputs_are_like_sample,
    batch_is_one_or_two,
    batch_is_two,
    unets_take_floats,
    unets_give_fp32,
)
