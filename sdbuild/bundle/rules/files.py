"""Rules of the folder: which files are there, under which names, and whether they can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sdbuild.base.paths import is_file
from sdbuild.base.units import size
from sdbuild.bundle.bundle_reader import (
    REFINER,
    SD,
    SD3,
    SDXL,
    SUFFIX,
    Compiled,
    Opened,
    read_bytes,
)
from sdbuild.bundle.rules.rule import (
    APPS,
    ERROR,
    NEURAL_ENGINE,
    PYTHON,
    SWIFT,
    TWO_ENCODERS,
    UNETS,
    WARNING,
    Finding,
    names,
    rule,
)

TRANSFORMER = "MultiModalDiffusionTransformer"
CHUNKABLE = ("Unet", "ControlledUnet", "UnetRefiner")
_WEIGHTS = re.compile(rb'"@model_path/([^"]+)"')
_WEIGHT_FILE = "weights/weight.bin"
_LARGEST_OF_ENGINE_BYTES = 1_000_000_000
"""Source: apple/ml-stable-diffusion, README: chunks of less than 1 GB for iPhones and iPads."""
_POINTER = b"version https://git-lfs"
_NEEDED = {
    SD: ("TextEncoder", "VAEDecoder"),
    SDXL: ("TextEncoder", "TextEncoder2", "VAEDecoder"),
    REFINER: ("TextEncoder2", "VAEDecoder"),
    SD3: ("TextEncoder", "TextEncoder2", TRANSFORMER, "VAEDecoder"),
}
"""Models that a host loads for every picture, besides the U-Net."""


@rule(ERROR, SWIFT, "fails when it loads the model: names are exact, and only .mlmodelc loads.",
      by_recipe=True)
def has_the_models_of_every_picture(bundle: Opened) -> Iterator[Finding]:
    """A bundle has its text encoders, a VAE decoder and, of SD 3, a transformer, all compiled."""
    is_multilingual = "MultilingualTextEncoderProjection" in bundle.models
    for name in _NEEDED[bundle.family]:
        is_cut = name == TRANSFORMER and bundle.denoiser(name)
        if name not in bundle.models and not is_cut and not (
                name == "TextEncoder" and is_multilingual):
            yield Finding(f"{name}{SUFFIX}", _nearest(bundle, name), "the model")


@rule(ERROR, SWIFT, "looks for the whole model and fails when it loads it.", families=(SD3,),
      by_checkpoint=True)
def the_transformer_is_whole(bundle: Opened) -> Iterator[Finding]:
    """The transformer of SD 3 is in one piece."""
    if TRANSFORMER not in bundle.models and (chunks := bundle.denoiser(TRANSFORMER)):
        yield Finding(f"{TRANSFORMER}{SUFFIX}", names(model.file for model in chunks),
                      "the whole model (chunk=1)")


@rule(ERROR, SWIFT, "fails when it loads the U-Net.", families=UNETS, by_recipe=True)
def has_a_unet(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a U-Net, or a controlled one: whole, or in two chunks."""
    if not any(_forms(bundle, name) for name in ("Unet", "ControlledUnet")):
        yield Finding(f"Unet{SUFFIX}", _nearest(bundle, "Unet"), "it, or its two chunks")


@rule(WARNING, SWIFT, "fails when it loads the U-Net for a picture without a ControlNet.",
      families=(SD,))
def has_a_unet_for_pictures_without_controlnets(bundle: Opened) -> Iterator[Finding]:
    """A bundle with a controlled U-Net also has the plain one."""
    if _forms(bundle, "ControlledUnet") and not _forms(bundle, "Unet"):
        yield Finding(f"Unet{SUFFIX}", "only ControlledUnet", "both")


@rule(ERROR, SWIFT, "ignores a single chunk and looks for the whole model in its place.",
      families=UNETS)
def chunks_come_in_pairs(bundle: Opened) -> Iterator[Finding]:
    """A chunk never stands alone."""
    for form in CHUNKABLE:
        missing = [name for name in _chunks(form) if name not in bundle.models]
        if len(missing) == 1:
            yield Finding(f"{missing[0]}{SUFFIX}", "only the other chunk", "both chunks or none")


@rule(ERROR, SWIFT, "runs the chunks wherever both are there, Guernika the whole model, also when "
      "the two are of different builds.", families=UNETS)
def chunks_never_stand_beside_the_whole(bundle: Opened) -> Iterator[Finding]:
    """Each U-Net is either whole or in chunks."""
    for form in CHUNKABLE:
        chunks = [f"{name}{SUFFIX}" for name in _chunks(form) if name in bundle.models]
        if chunks and form in bundle.models:
            yield Finding(f"{form}{SUFFIX}", f"also {names(chunks)}", "only one of the two forms")


@rule(ERROR, SWIFT, "runs the first two and uses the second's output as the noise.",
      families=UNETS, by_checkpoint=True)
def chunks_are_two(bundle: Opened) -> Iterator[Finding]:
    """A U-Net is cut into no more than two chunks."""
    for name in sorted(bundle.models):
        form, cut, number = name.partition("Chunk")
        if form in CHUNKABLE and cut and number.isdecimal() and name not in _chunks(form):
            yield Finding(f"{name}{SUFFIX}", "a third chunk", names(_chunks(form)))


@rule(WARNING, NEURAL_ENGINE, "of an iPhone or iPad loads none that is larger, and that of a Mac "
      "none near 2 GB: it is run elsewhere or not at all.", families=UNETS)
def models_fit_the_neural_engine(bundle: Opened) -> Iterator[Finding]:
    """The weights of a model that is laid out for the Neural Engine take 1 GB at most."""
    if not str(bundle.manifest.get("attention", "original")).startswith("split_einsum"):
        return
    for model in bundle.models.values():
        path = model.path / _WEIGHT_FILE
        weights = path.stat().st_size if is_file(path) else 0
        if weights > _LARGEST_OF_ENGINE_BYTES:
            form = model.file.partition("Chunk")[0].removesuffix(SUFFIX)
            ways = "more chunks (chunk=) or " if form in CHUNKABLE else ""
            yield Finding(f"{model.file}/{_WEIGHT_FILE}", size(weights),
                          f"{size(_LARGEST_OF_ENGINE_BYTES)} or less, with {ways}fewer bits "
                          "(quant=)")


@rule(ERROR, SWIFT, "never opens it: a picture that it would refuse is returned.",
      families=TWO_ENCODERS)
def only_sd_has_a_safety_checker(bundle: Opened) -> Iterator[Finding]:
    """A bundle of SDXL or SD 3 has no safety checker."""
    if "SafetyChecker" in bundle.models:
        yield Finding(f"SafetyChecker{SUFFIX}", "the model", "nothing")


@rule(ERROR, SWIFT, "ignores them: the picture does not follow the control image.",
      families=TWO_ENCODERS, by_checkpoint=True)
def only_sd_has_controlnets(bundle: Opened) -> Iterator[Finding]:
    """A bundle of SDXL or SD 3 has neither ControlNets nor a U-Net for them."""
    for name, model in bundle.models.items():
        if name.startswith(("controlnet/", "ControlledUnet")):
            yield Finding(model.file, "the model", "nothing")


@rule(ERROR, SWIFT, "fails when it loads the U-Net for a picture with a ControlNet.",
      families=(SD,))
def controlnets_have_a_unet(bundle: Opened) -> Iterator[Finding]:
    """A bundle with ControlNets has a U-Net that takes what they give."""
    has_nets = any(name.startswith("controlnet/") for name in bundle.models)
    if has_nets and not _forms(bundle, "ControlledUnet"):
        yield Finding(f"ControlledUnet{SUFFIX}", _nearest(bundle, "ControlledUnet"),
                      "it, or its two chunks")


@rule(WARNING, SWIFT, "lets it take over after 80 % of the steps, whether it was asked to or not.",
      families=(SDXL,))
def a_refiner_is_used_unasked(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a refiner only if all its pictures are to be refined."""
    for model in bundle.denoiser("UnetRefiner")[:1]:
        yield Finding(model.file, "the model", "nothing, unless it is meant for every picture")


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
        if not program(model):
            yield Finding(f"{model.file}/model.mil", "nothing", "a program")


@rule(ERROR, SWIFT, "fails when it loads the model.")
def weights_are_there(bundle: Opened) -> Iterator[Finding]:
    """Every weight file that a program names is in its model."""
    for model in bundle.models.values():
        for file in sorted(set(_WEIGHTS.findall(program(model)))):
            name = file.decode("utf-8", "replace")
            if ".." in name.split("/") or not is_file(model.path / name):
                yield Finding(f"{model.file}/{name}", "no file", "the weights that model.mil names")


@rule(ERROR, SWIFT, "fails when it loads the model, or splits prompts into single letters.")
def files_are_whole(bundle: Opened) -> Iterator[Finding]:
    """No file is a Git LFS pointer in place of the file itself."""
    inside = ("coremldata.bin", "model.mil", "metadata.json", _WEIGHT_FILE)
    wanted = [f"{model.file}/{name}" for model in bundle.models.values() for name in inside]
    for name in ("vocab.json", "merges.txt", *wanted):
        if _begins_as_pointer(bundle.folder / name):
            yield Finding(name, "a Git LFS pointer", "the file: git lfs pull")


@rule(WARNING, APPS, "finds no image size, so it offers no image to image and no ControlNets.")
def has_a_vae_encoder(bundle: Opened) -> Iterator[Finding]:
    """A bundle has a VAE encoder: apps read the picture size from it."""
    if "VAEEncoder" not in bundle.models:
        yield Finding(f"VAEEncoder{SUFFIX}", _nearest(bundle, "VAEEncoder"), "the model")


@rule(WARNING, SWIFT, "crashes at every starting image, as its scheduler for SD 3 has no alphas.",
      families=(SD3,))
def sd3_draws_from_text_alone(bundle: Opened) -> Iterator[Finding]:
    """A bundle of SD 3 is not used for image to image."""
    for model in bundle.each("VAEEncoder"):
        yield Finding(model.file, "the model", "no starting image; apps read the size from it")


def program(model: Compiled) -> bytes:
    """Returns the text of a model's program, empty if there is none."""
    try:
        return read_bytes(model.path / "model.mil")
    except ValueError:
        return b""


def _begins_as_pointer(path: Path) -> bool:
    if not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _chunks(form: str) -> tuple[str, str]:
    return f"{form}Chunk1", f"{form}Chunk2"


def _forms(bundle: Opened, name: str) -> bool:
    """Whether a bundle has a model in any form."""
    return bool({name, *_chunks(name)} & bundle.models.keys())


def _nearest(bundle: Opened, name: str) -> str:
    """Returns what is there instead of a model: it under another spelling, in chunks, in a
    folder of this one, or nothing."""
    spelled = [n for n in bundle.names if n.lower().partition(".")[0] == name.lower()
               or n.startswith(f"{name}Chunk")]
    found = spelled or _below(bundle, name)
    return names(found) if found else "nothing"


def _below(bundle: Opened, name: str) -> list[str]:
    """Returns a model in a folder of the bundle's, as in an archive that holds more than one
    form."""
    return [f"{folder}/{name}{SUFFIX}" for folder in bundle.names
            if (bundle.folder / folder / f"{name}{SUFFIX}").is_dir()]


FILES = (
    has_the_models_of_every_picture,
    the_transformer_is_whole,
    has_a_unet,
    has_a_unet_for_pictures_without_controlnets,
    chunks_come_in_pairs,
    chunks_never_stand_beside_the_whole,
    chunks_are_two,
    models_fit_the_neural_engine,
    only_sd_has_a_safety_checker,
    only_sd_has_controlnets,
    controlnets_have_a_unet,
    a_refiner_is_used_unasked,
    holds_no_packages,
    descriptions_can_be_read,
    programs_are_there,
    weights_are_there,
    files_are_whole,
    has_a_vae_encoder,
    sd3_draws_from_text_alone,
)
