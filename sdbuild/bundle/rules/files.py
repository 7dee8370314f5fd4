"""Rules of the folder: which files are there, under which names, and whether they can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdbuild.base.paths import is_file
from sdbuild.bundle.bundle_reader import SUFFIX, Compiled, Opened, read_bytes
from sdbuild.bundle.rules.rule import APPS, ERROR, PYTHON, SWIFT, WARNING, Finding, names, rule

_CHUNKS = ("UnetChunk1", "UnetChunk2")
_WEIGHTS = re.compile(rb'"@model_path/([^"]+)"')


@rule(ERROR, SWIFT, "fails when it loads the model: names are exact, and only .mlmodelc loads.")
def has_the_models_of_every_picture(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a text encoder and a VAE decoder, compiled."""
    wanted = ["VAEDecoder"]
    if "MultilingualTextEncoderProjection" not in bundle.models:
        wanted.insert(0, "TextEncoder")
    for name in wanted:
        if name not in bundle.models:
            yield Finding(f"{name}{SUFFIX}", _nearest(bundle, name), "the model")


@rule(ERROR, SWIFT, "fails when it loads the U-Net.")
def has_a_unet(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a U-Net, whole or in two chunks."""
    if not {"Unet", *_CHUNKS} & bundle.models.keys():
        yield Finding(f"Unet{SUFFIX}", _nearest(bundle, "Unet"), "it, or its two chunks")


@rule(ERROR, SWIFT, "ignores a single chunk and looks for the complete U-Net.")
def chunks_come_in_pairs(bundle: Opened) -> Iterator[Finding]:
    """A chunk of the U-Net never stands alone."""
    missing = [name for name in _CHUNKS if name not in bundle.models]
    if len(missing) == 1:
        yield Finding(f"{missing[0]}{SUFFIX}", "only the other chunk", "both chunks or none")


@rule(ERROR, SWIFT, "runs the chunks wherever both exist, even of another build.")
def chunks_never_stand_beside_the_whole(bundle: Opened) -> Iterator[Finding]:
    """Either the U-Net is whole or it is in chunks."""
    chunks = [f"{name}{SUFFIX}" for name in _CHUNKS if name in bundle.models]
    if chunks and "Unet" in bundle.models:
        yield Finding(f"Unet{SUFFIX}", f"also {names(chunks)}", "only one of the two forms")


@rule(ERROR, SWIFT, "runs the first two and uses the second's output as the noise.")
def chunks_are_two(bundle: Opened) -> Iterator[Finding]:
    """The U-Net is cut into no more than two chunks."""
    for name in sorted(bundle.models):
        if re.fullmatch(r"UnetChunk\d+", name) and name not in _CHUNKS:
            yield Finding(f"{name}{SUFFIX}", "a third chunk", "UnetChunk1 and UnetChunk2")


@rule(WARNING, PYTHON, "refuses a folder with both packages and compiled models.")
def holds_no_packages(bundle: Opened) -> Iterator[Finding]:
    """A bundle holds compiled models only."""
    for name in sorted(bundle.names):
        if name.endswith(".mlpackage"):
            yield Finding(name, "a package", f"only {SUFFIX}")


@rule(ERROR, SWIFT, "fails when it loads the model.")
def descriptions_can_be_read(bundle: Opened) -> Iterator[Finding]:
    """Every compiled model has a `coremldata.bin` that describes an ML Program."""
    for model in bundle.models.values():
        if model.problem:
            yield Finding(model.file, model.problem, "the description of an ML Program")


@rule(ERROR, SWIFT, "fails when it loads the model.")
def programs_are_there(bundle: Opened) -> Iterator[Finding]:
    """Every compiled model has its program in `model.mil`."""
    for model in bundle.models.values():
        if not _program(model):
            yield Finding(f"{model.file}/model.mil", "nothing", "a program")


@rule(ERROR, SWIFT, "fails when it loads the model.")
def weights_are_there(bundle: Opened) -> Iterator[Finding]:
    """Every weight file that a program names is in its model."""
    for model in bundle.models.values():
        for file in sorted(set(_WEIGHTS.findall(_program(model)))):
            name = file.decode("utf-8", "replace")
            if ".." in name.split("/") or not is_file(model.path / name):
                yield Finding(f"{model.file}/{name}", "no file", "the weights that model.mil names")


@rule(WARNING, APPS, "finds no image size, so it offers no image to image and no ControlNets.")
def has_a_vae_encoder(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a VAE encoder: apps read the picture size from it."""
    if "VAEEncoder" not in bundle.models:
        yield Finding(f"VAEEncoder{SUFFIX}", _nearest(bundle, "VAEEncoder"), "the model")


def _program(model: Compiled) -> bytes:
    try:
        return read_bytes(model.path / "model.mil")
    except ValueError:
        return b""


def _nearest(bundle: Opened, name: str) -> str:
    """What stands in the place of a model: it under another spelling, or nothing."""
    spelled = [n for n in bundle.names if n.lower().partition(".")[0] == name.lower()]
    return names(spelled) if spelled else "nothing"


FILES = (
    has_the_models_of_every_picture,
    has_a_unet,
    chunks_come_in_pairs,
    chunks_never_stand_beside_the_whole,
    chunks_are_two,
    holds_no_packages,
    descriptions_can_be_read,
    programs_are_there,
    weights_are_there,
    has_a_vae_encoder,
)
