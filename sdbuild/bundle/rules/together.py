"""Rules that hold across models: chunks that meet, sizes and widths that agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SDXL, Compiled, Feature, Opened
from sdbuild.bundle.rules.files import TRANSFORMER
from sdbuild.bundle.rules.rule import ERROR, SWIFT, UNETS, WARNING, XL, Finding, names, rule
from sdbuild.bundle.rules.shapes import fits, present
from sdbuild.bundle.rules.text_encoders import PROJECTION
from sdbuild.bundle.rules.unets import forms, inputs, is_fed


@rule(ERROR, SWIFT, "feeds the second chunk the first one's outputs, by name; it needs all.",
      families=UNETS)
def chunks_meet(bundle: Opened) -> Iterator[Finding]:
    """The second chunk's own inputs are the first one's outputs, by name and shape."""
    for form, first, second in _chunks(bundle):
        wanted = {n: f.shape for n, f in second.inputs.items() if not is_fed(bundle, form, n)}
        given = {name: feature.shape for name, feature in first.outputs.items()}
        if set(wanted) - set(given):
            yield Finding(second.file, f"inputs {names(wanted)}", f"{names(given)} of chunk 1")
        for name in sorted(wanted.keys() & given.keys()):
            if given[name] and wanted[name] != given[name]:
                yield Finding(f"{second.file} {name}", str(wanted[name]),
                              f"{given[name]} as chunk 1 gives it")


@rule(ERROR, SWIFT, "feeds the second chunk the first one's output in place of the input.",
      families=UNETS)
def boundary_hides_no_input(bundle: Opened) -> Iterator[Finding]:
    """No output of the first chunk is called like an input that both the U-Net and its second chunk
    have."""
    for form, first, second in _chunks(bundle):
        clash = {name for name in first.outputs if is_fed(bundle, form, name)} & set(second.inputs)
        if clash:
            yield Finding(first.file, f"outputs {names(clash)}", "other names")


@rule(WARNING, SWIFT, "was only ever used with chunks that meet in fp32, as Apple cuts them.",
      families=UNETS)
def boundary_is_fp32(bundle: Opened) -> Iterator[Finding]:
    """Values between chunks are declared fp32 on both sides."""
    for form, first, second in _chunks(bundle):
        crossing = [(first, f) for f in first.outputs.values()]
        crossing += [(second, f) for n, f in second.inputs.items() if not is_fed(bundle, form, n)]
        for model, feature in crossing:
            if feature.dtype != "fp32":
                yield Finding(f"{model.file} {feature.name}", feature.dtype, "fp32")


@rule(ERROR, SWIFT, "feeds the same noisy latents to all; another size stops the prediction.")
def latents_have_one_size(bundle: Opened) -> Iterator[Finding]:
    """Denoisers, VAE decoder and VAE encoder have latents of the same size and channels."""
    encoded = _sizes(bundle.each("VAEEncoder"), "outputs")
    yield from _agree("latents", {
        **_sizes((models[-1] for _, models in forms(bundle)), "outputs"),
        **_sizes(bundle.each(TRANSFORMER), "outputs"),
        **_sizes(bundle.each("VAEDecoder"), "inputs"),
        **{file: (channels // 2, *rest) for file, (channels, *rest) in encoded.items()},
    })


@rule(ERROR, SWIFT, "never resizes: image to image and ControlNets fail, or come out in two sizes.")
def pictures_have_one_size(bundle: Opened) -> Iterator[Finding]:
    """VAE decoder, VAE encoder, ControlNets and manifest have pictures of the same size."""
    sides = (bundle.manifest.get("height_px"), bundle.manifest.get("width_px"))
    asked = tuple(side for side in sides if isinstance(side, int))
    found = {
        **_sizes(bundle.each("VAEDecoder"), "outputs"),
        **_sizes(bundle.each("VAEEncoder"), "inputs"),
        **_sizes(bundle.nets, "inputs", "controlnet_cond"),
    }
    yield from _agree("pictures", {
        **{file: size[1:] for file, size in found.items()},
        **({"manifest.json": asked} if len(asked) == 2 else {}),
    })


@rule(ERROR, SWIFT, "hands the embeddings on as they are; another width stops the prediction.",
      families=UNETS)
def embeddings_fit(bundle: Opened) -> Iterator[Finding]:
    """The text encoders give as many tokens, and as wide in all, as each U-Net takes."""
    for form, models in forms(bundle):
        yield from _fit(_embeddings(bundle, form), models)


@rule(WARNING, SWIFT, "hands on what it gives as it is: prompts in other languages fail.",
      families=(SD,))
def projections_fit(bundle: Opened) -> Iterator[Finding]:
    """A multilingual projection gives as many tokens, and as wide, as the U-Net takes."""
    for models in filter(None, [bundle.unet if "TextEncoder" in bundle.models else ()]):
        yield from _fit(_projected(bundle), models)


@rule(ERROR, SWIFT, "puts the embeddings of both side by side, and crashes if one has more tokens.",
      families=(SDXL, SD3))
def encoders_give_as_many_tokens(bundle: Opened) -> Iterator[Finding]:
    """Both text encoders give as many tokens."""
    found = [(m, f) for m in bundle.each("TextEncoder", "TextEncoder2")
             for f in _hidden(m, "hidden_embeds")]
    if len(found) == 2 and found[0][1].shape[1] != found[1][1].shape[1]:
        model, feature = found[1]
        yield Finding(f"{model.file} {feature.name}", f"{feature.shape[1]} tokens",
                      f"{found[0][1].shape[1]} as {found[0][0].file}")


@rule(ERROR, SWIFT, "feeds the second encoder's as they are; another width stops the prediction.",
      families=XL)
def pooled_embeddings_fit(bundle: Opened) -> Iterator[Finding]:
    """`text_embeds` of each U-Net are as wide as `pooled_outputs` of the second encoder."""
    given = [f for m in bundle.each("TextEncoder2") for f in present(m.outputs, "pooled_outputs")]
    for _, models in forms(bundle):
        for taken in present(inputs(models), "text_embeds"):
            for feature in given:
                if feature.shape and feature.shape[-1:] != taken.shape[-1:]:
                    yield Finding(f"{models[0].file} text_embeds", str(taken.shape),
                                  f"{feature.shape} as TextEncoder2.mlmodelc gives")


def _chunks(bundle: Opened) -> Iterator[tuple[str, Compiled, Compiled]]:
    for form, models in forms(bundle):
        for first, second in pairwise(models):
            yield form, first, second


def _embeddings(bundle: Opened, form: str) -> Iterator[tuple[str, int, int]]:
    """Returns the source of prompt embeddings, their width and tokens."""
    if bundle.family == SD:
        for model in bundle.each("TextEncoder"):
            for feature in _hidden(model, "last_hidden_state"):
                yield f"{model.file} {feature.name}", feature.shape[2], feature.shape[1]
        if "TextEncoder" not in bundle.models:
            yield from _projected(bundle)
        return
    is_refiner = bundle.family == REFINER or form == "UnetRefiner"
    wanted = ("TextEncoder2",) if is_refiner else ("TextEncoder", "TextEncoder2")
    found = [(m, f) for m in bundle.each(*wanted) for f in _hidden(m, "hidden_embeds")]
    if len(found) == len(wanted):
        yield (" and ".join(model.file for model, _ in found) + " hidden_embeds",
               sum(feature.shape[2] for _, feature in found), found[-1][1].shape[1])


def _projected(bundle: Opened) -> Iterator[tuple[str, int, int]]:
    for model in bundle.each(PROJECTION):
        for feature in list(model.outputs.values())[:1]:
            if fits(feature.shape, (1, "", 1, "")):
                yield f"{model.file} {feature.name}", feature.shape[1], feature.shape[3]


def _fit(
    given: Iterable[tuple[str, int, int]], models: tuple[Compiled, ...]
) -> Iterator[Finding]:
    """Yields a finding for embeddings that are not as the U-Net takes them."""
    taken = inputs(models).get("encoder_hidden_states")
    for where, width, tokens in given if taken and len(taken.shape) == 4 else ():
        if taken and (width, 1, tokens) != taken.shape[1:]:
            yield Finding(where, f"{tokens} tokens, {width} wide",
                          f"{taken.shape[3]}, {taken.shape[1]} wide for {models[0].file}")


def _hidden(model: Compiled, name: str) -> list[Feature]:
    return [f for f in present(model.outputs, name) if len(f.shape) == 3]


def _sizes(models: Iterable[Compiled], side: str, name: str = "") -> dict[str, tuple[int, ...]]:
    """Channels, rows and columns of a port of each model, the first one if it has no name."""
    found: dict[str, tuple[int, ...]] = {}
    for model in models:
        ports: Mapping[str, Feature] = getattr(model, side)
        port = ports.get(name) if name else next(iter(ports.values()), None)
        if port is not None and len(port.shape) == 4:
            found[model.file] = port.shape[1:]
    return found


def _agree(what: str, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    first, *others = sizes.items() or [("", ())]
    for where, size in others:
        if size != first[1]:
            yield Finding(where, f"{what} of {_times(size)}", f"{_times(first[1])} as {first[0]}")


def _times(size: tuple[int, ...]) -> str:
    """Rows and columns as people say them: `512×768`, the width first; before them channels."""
    *channels, height, width = size
    of = f" in {channels[0]} channels" if channels else ""
    return f"{width}×{height}{of}"


TOGETHER = (
    chunks_meet,
    boundary_hides_no_input,
    boundary_is_fp32,
    latents_have_one_size,
    pictures_have_one_size,
    embeddings_fit,
    projections_fit,
    encoders_give_as_many_tokens,
    pooled_embeddings_fit,
)
