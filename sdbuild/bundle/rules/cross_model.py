"""Rules that hold across models: chunks that meet, sizes, widths and batches that agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.bundle.bundle_reader import Compiled, Opened
from sdbuild.bundle.rules.ports import UNET_INPUTS
from sdbuild.bundle.rules.rule import ERROR, SWIFT, WARNING, Finding, names, rule


@rule(ERROR, SWIFT, "feeds the second chunk the first one's outputs, by name; it needs all.")
def chunks_meet(bundle: Opened) -> Iterator[Finding]:
    """The second chunk's own inputs are the first one's outputs, by name and shape."""
    for first, second in _chunks(bundle):
        wanted = {n: f.shape for n, f in second.inputs.items() if n not in UNET_INPUTS}
        given = {name: feature.shape for name, feature in first.outputs.items()}
        if set(wanted) - set(given):
            yield Finding(second.file, f"inputs {names(wanted)}", f"{names(given)} of chunk 1")
        for name in sorted(wanted.keys() & given.keys()):
            if wanted[name] != given[name]:
                yield Finding(f"{second.file} {name}", str(wanted[name]),
                              f"{given[name]} as chunk 1 gives it")


@rule(ERROR, SWIFT, "feeds the second chunk the first one's output in place of the input.")
def boundary_hides_no_input(bundle: Opened) -> Iterator[Finding]:
    """No output of the first chunk is called like an input of the U-Net."""
    for first, _ in _chunks(bundle):
        clash = set(first.outputs) & set(UNET_INPUTS)
        if clash:
            yield Finding(first.file, f"outputs {names(clash)}", "other names")


@rule(WARNING, SWIFT, "was only ever used with chunks that meet in fp32, as Apple cuts them.")
def boundary_is_fp32(bundle: Opened) -> Iterator[Finding]:
    """What crosses from chunk to chunk is declared fp32 on both sides."""
    for first, second in _chunks(bundle):
        crossing = [(first, f) for f in first.outputs.values()]
        crossing += [(second, f) for n, f in second.inputs.items() if n not in UNET_INPUTS]
        for model, feature in crossing:
            if feature.dtype != "fp32":
                yield Finding(f"{model.file} {feature.name}", feature.dtype, "fp32")


@rule(ERROR, SWIFT, "feeds the same noisy latents to both; another size stops the prediction.")
def latents_have_one_size(bundle: Opened) -> Iterator[Finding]:
    """U-Net, VAE decoder and VAE encoder have latents of the same size."""
    yield from _agree("latents", {
        **_sizes(bundle.unet[:1], "inputs", "sample"),
        **_sizes(tuple(bundle.each("VAEDecoder")), "inputs"),
        **_sizes(tuple(bundle.each("VAEEncoder")), "outputs"),
    })


@rule(ERROR, SWIFT, "never resizes: image to image and ControlNets fail, or come out in two sizes.")
def pictures_have_one_size(bundle: Opened) -> Iterator[Finding]:
    """VAE decoder, VAE encoder and manifest have pictures of the same size."""
    sides = (bundle.manifest.get("height_px"), bundle.manifest.get("width_px"))
    asked = tuple(side for side in sides if isinstance(side, int))
    yield from _agree("pictures", {
        **_sizes(tuple(bundle.each("VAEDecoder")), "outputs"),
        **_sizes(tuple(bundle.each("VAEEncoder")), "inputs"),
        **({"manifest.json": asked} if len(asked) == 2 else {}),
    })


@rule(ERROR, SWIFT, "hands the embeddings on as they are; another width stops the prediction.")
def embeddings_fit(bundle: Opened) -> Iterator[Finding]:
    """The text encoder gives as many tokens, and as wide, as the U-Net takes."""
    wanted = [m.inputs["encoder_hidden_states"].shape for m in bundle.unet
              if "encoder_hidden_states" in m.inputs]
    for model in bundle.each("TextEncoder"):
        given = model.outputs.get("last_hidden_state")
        for shape in wanted:
            if given and len(given.shape) == 3 and len(shape) == 4:
                _, tokens, width = given.shape
                if (width, 1, tokens) != shape[1:]:
                    yield Finding(f"{model.file} last_hidden_state", str(given.shape),
                                  f"(1, {shape[3]}, {shape[1]}) for the U-Net")


@rule(ERROR, SWIFT, "feeds a batch of one, or of two, for all inputs: predictions fail on others.")
def batch_is_one_or_two(bundle: Opened) -> Iterator[Finding]:
    """All inputs of the U-Net have the same batch, one or two."""
    found = {
        f"{model.file} {name}": model.inputs[name].shape[0]
        for model in bundle.unet for name in UNET_INPUTS
        if name in model.inputs and model.inputs[name].shape
    }
    if len(set(found.values())) > 1 or not set(found.values()) <= {1, 2}:
        where, batches = next(iter(found)), ", ".join(f"{b} in {n}" for n, b in found.items())
        yield Finding(where.partition(" ")[0], f"batches of {batches}", "one or two, the same")


def _chunks(bundle: Opened) -> Iterator[tuple[Compiled, Compiled]]:
    if len(bundle.unet) == 2:
        yield bundle.unet[0], bundle.unet[1]


def _sizes(
    models: tuple[Compiled, ...], side: str, name: str = ""
) -> dict[str, tuple[int, ...]]:
    """Rows and columns of a port of each model, the first one if it has no name."""
    found = {}
    for model in models:
        ports = getattr(model, side)
        port = ports.get(name) if name else next(iter(ports.values()), None)
        if port is not None and len(port.shape) == 4:
            found[model.file] = port.shape[2:]
    return found


def _agree(what: str, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    first, *others = sizes.items() or [("", ())]
    for where, size in others:
        if size != first[1]:
            yield Finding(where, f"{what} of {_times(size)}", f"{_times(first[1])} as {first[0]}")


def _times(size: tuple[int, ...]) -> str:
    """Rows and columns as people say them: `512×768`, the width first."""
    return "×".join(map(str, reversed(size)))


TOGETHER = (
    chunks_meet,
    boundary_hides_no_input,
    boundary_is_fp32,
    latents_have_one_size,
    pictures_have_one_size,
    embeddings_fit,
    batch_is_one_or_two,
)
