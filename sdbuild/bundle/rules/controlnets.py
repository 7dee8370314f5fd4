"""Rules of ControlNets, and of the U-Net that takes their residuals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.bundle.bundle_reader import SD, Compiled, Opened
from sdbuild.bundle.rules.rule import ERROR, SWIFT, Finding, names, rule
from sdbuild.bundle.rules.shapes import Shape, present, required, shaped, typed
from sdbuild.bundle.rules.unets import inputs, is_residual

_SHAPES: Mapping[str, Shape] = {
    "sample": (2, "channels", "h", "w"),
    "timestep": (2,),
    "encoder_hidden_states": (2, "width", 1, "tokens"),
    "controlnet_cond": (2, 3, "H", "W"),
}


@rule(ERROR, SWIFT, "feeds these by name: with another one predictions fail, without one the "
      "net does not get it.", families=(SD,))
def controlnets_take_what_is_fed(bundle: Opened) -> Iterator[Finding]:
    """A ControlNet takes `sample`, `timestep`, `encoder_hidden_states` and `controlnet_cond`."""
    for model in bundle.nets:
        if not required(model.inputs) <= set(_SHAPES) <= set(model.inputs):
            yield Finding(model.file, f"inputs {names(model.inputs)}", names(_SHAPES))


@rule(ERROR, SWIFT, "doubles latents and picture at every guidance: predictions fail on others.",
      families=(SD,), by_recipe=True)
def controlnets_inputs_have_their_shapes(bundle: Opened) -> Iterator[Finding]:
    """A ControlNet's inputs are (2, channels, h, w), (2), (2, width, 1, tokens), (2, 3, H, W)."""
    for model in bundle.nets:
        for name, shape in _SHAPES.items():
            yield from shaped(model, present(model.inputs, name), shape)


@rule(ERROR, SWIFT, "feeds a ControlNet what it feeds the U-Net: predictions fail.", families=(SD,))
def controlnets_inputs_are_like_the_unets(bundle: Opened) -> Iterator[Finding]:
    """A ControlNet's embeddings have the shape of the controlled U-Net's."""
    yield from _like_the_unets(bundle, "encoder_hidden_states")


@rule(ERROR, SWIFT, "feeds a ControlNet the latents of the U-Net, with mask and image if it is for "
      "inpainting: predictions fail.", families=(SD,), by_checkpoint=True)
def controlnets_latents_are_like_the_unets(bundle: Opened) -> Iterator[Finding]:
    """A ControlNet's latents have the shape of the controlled U-Net's."""
    yield from _like_the_unets(bundle, "sample")


def _like_the_unets(bundle: Opened, name: str) -> Iterator[Finding]:
    unet = bundle.denoiser("ControlledUnet")
    wanted = inputs(unet) if unet else {}
    for model in bundle.nets if name in wanted else ():
        yield from shaped(model, present(model.inputs, name), wanted[name].shape)


@rule(ERROR, SWIFT, "hands residuals on by name and adds up those of several nets by the names of "
      "one: predictions fail, it crashes, or a residual is lost.", families=(SD,))
def residuals_meet(bundle: Opened) -> Iterator[Finding]:
    """Each ControlNet gives the residuals that the controlled U-Net takes, of the same shapes."""
    unet = bundle.denoiser("ControlledUnet")
    taken = {n: f.shape for n, f in inputs(unet).items() if is_residual(bundle, n)} if unet else {}
    for model in bundle.nets if unet else ():
        yield from _meets(model, taken, unet[0].file)


@rule(ERROR, SWIFT, "reads them as fp32 without a conversion, and crashes on others.",
      families=(SD,))
def residuals_are_fp32(bundle: Opened) -> Iterator[Finding]:
    """A ControlNet's outputs are declared fp32."""
    for model in bundle.nets:
        yield from typed(model, model.outputs.values(), ("fp32",))


@rule(ERROR, SWIFT, "drops what ControlNets give, and does not say so.", families=(SD,))
def a_controlled_unet_takes_residuals(bundle: Opened) -> Iterator[Finding]:
    """The controlled U-Net takes residuals."""
    for models in filter(None, [bundle.denoiser("ControlledUnet")]):
        if not any(is_residual(bundle, name) for name in inputs(models)):
            yield Finding(models[0].file, f"inputs {names(inputs(models))}",
                          "additional_residual_0 and so on")


def _meets(
    model: Compiled, taken: Mapping[str, tuple[int, ...]], unet: str
) -> Iterator[Finding]:
    given = {name: feature.shape for name, feature in model.outputs.items()}
    if set(given) != set(taken):
        yield Finding(model.file, f"outputs {names(given)}", f"{names(taken)} for {unet}")
    for name in sorted(given.keys() & taken.keys()):
        if given[name] and given[name] != taken[name]:
            yield Finding(f"{model.file} {name}", str(given[name]), f"{taken[name]} for {unet}")


CONTROLNETS = (
    controlnets_take_what_is_fed,
    controlnets_inputs_have_their_shapes,
    controlnets_inputs_are_like_the_unets,
    controlnets_latents_are_like_the_unets,
    residuals_meet,
    residuals_are_fp32,
    a_controlled_unet_takes_residuals,
)
