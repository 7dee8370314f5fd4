"""Bundles without a manifest: what it would say, inferred from models as hosts do, and reported.

Compiled models lie flat, as Apple's converter bundles them; packages are called as it names them:
`Stable_Diffusion_version_<model>_<part>.mlpackage`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.base.errors import BundleError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SDXL
from sdbuild.bundle.hosts import SWIFT_SCHEDULE
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.rules.settings import SCALES
from sdbuild.checkpoints.single_file import CLIP
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.read import read_model
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

_CELL_PX = 8
_NAMES = {
    "text_encoder": ("TextEncoder", "text_encoder"),
    "text_encoder_2": ("TextEncoder2", "text_encoder_2"),
    "unet": ("Unet", "unet"),
    "refiner": ("UnetRefiner", "refiner"),
    "controlled_unet": ("ControlledUnet", "control-unet"),
    "vae_decoder": ("VAEDecoder", "vae_decoder"),
    "vae_encoder": ("VAEEncoder", "vae_encoder"),
    "safety_checker": ("SafetyChecker", "safety_checker"),
}
"""What each component is called in a bundle, and in the packages of Apple's converter.

Source:
    apple/ml-stable-diffusion at e12202c, `torch2coreml.py`.
"""
_PART = re.compile(r"Stable_Diffusion_version_.*?_(text_encoder_2|text_encoder|vae_decoder|"
                   r"vae_encoder|control-unet|unet|refiner|safety_checker)(_chunk[12])?")
_END_TOKEN = "<|endoftext|>"


def infer(folder: Path, prediction_type: str | None = None) -> tuple[Bundle, list[str]]:
    """Returns the bundle of a folder of models, and what is assumed of it.

    Args:
        prediction_type: what the U-Net predicts, noise if None.
    Raises:
        BundleError: there is no U-Net, or none that can be drawn with.
    """
    models = _models(folder)
    if "unet" not in models:
        found = ", ".join(sorted(models)) or "no models"
        raise BundleError(f"{shown(folder)}: no U-Net, found {found}",
                          hint="a bundle has Unet.mlmodelc, or a package that ends in _unet")
    unet = read_model(models["unet"][0])
    family = _family(unet, folder)
    *_, height, width = _sample(unet, folder)
    attention = _attention(unet, folder)
    has_own = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    predicts = prediction_type or "epsilon"
    bundle = Bundle(
        folder=folder, name=_name(folder), family=family, width_px=width * _CELL_PX,
        height_px=height * _CELL_PX, attention=attention, scale_factor=SCALES[family],
        pad_token=_END_TOKEN, prediction_type=predicts,
        scheduler=dict(SWIFT_SCHEDULE) | {
            "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True,
            "steps_offset": 1},
        models=models, defaults={}, description=f"{_name(folder)}, without a manifest",
        tokenizer=folder if has_own else CLIP,
    )
    notes = [
        f"family={family}, {bundle.width_px}x{bundle.height_px} pixels and {attention} are "
        "inferred from the U-Net",
        f"assumed: a scale factor of {bundle.scale_factor}, the schedule of Stable Diffusion, and "
        f"that the U-Net predicts {predicts}",
    ]
    if not has_own:
        notes.append("no vocab.json and merges.txt: CLIP's own are used")
    return bundle, notes


def _models(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the models of each component; both chunks win over a whole one, as in hosts."""
    by_name = dict(_named(folder))
    found: dict[str, tuple[Path, ...]] = {}
    for component in _NAMES:
        chunks = [by_name.get(f"{component}_chunk{number}") for number in (1, 2)]
        whole = by_name.get(component)
        if chunks[0] is not None and chunks[1] is not None:
            found[component] = (chunks[0], chunks[1])
        elif whole is not None:
            found[component] = (whole,)
    nets = {path.name.rpartition(".")[0]: path for path in contents(folder, COMPILED)
            if path.name.startswith("ControlNet_")}
    if (folder / "controlnet").is_dir():
        nets |= {path.name.rpartition(".")[0]: path
                 for path in contents(folder / "controlnet", COMPILED)}
    return found | {f"controlnet/{name}": (path,) for name, path in nets.items()}


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields each model with its component, and `_chunk1` or `_chunk2` behind that."""
    for path in contents(folder):
        name, dot, suffix = path.name.rpartition(".")
        if dot + suffix not in (COMPILED, PACKAGE) or not path.is_dir():
            continue
        apples = _PART.fullmatch(name)
        for component, (bundled, part) in _NAMES.items():
            if apples and apples[1] == part:
                yield component + (apples[2] or ""), path
            for end, chunk in (("", ""), ("Chunk1", "_chunk1"), ("Chunk2", "_chunk2")):
                if name == bundled + end:
                    yield component + chunk, path


def _sample(unet: Model, folder: Path) -> tuple[int, ...]:
    shape = unet.input_shapes.get("sample", ())
    if len(shape) != 4:
        raise BundleError(f"{shown(folder)}: the U-Net has no input sample of four dimensions, "
                          f"found {', '.join(unet.input_shapes)}",
                          hint="images are generated of Stable Diffusion 1.x, 2.x and XL only")
    return shape


def _family(unet: Model, folder: Path) -> str:
    """Returns the family of a U-Net, by its inputs.

    Raises:
        BundleError: it is of none that is drawn.
    """
    shapes: Mapping[str, tuple[int, ...]] = unet.input_shapes
    if "latent_image_embeddings" in shapes:
        raise BundleError(f"{shown(folder)}: its U-Net is that of {SD3}, not supported yet",
                          hint="images are generated of Stable Diffusion 1.x, 2.x and XL only")
    if "time_ids" not in shapes:
        return SD
    return REFINER if shapes["time_ids"][-1:] == (5,) else SDXL


def _attention(unet: Model, folder: Path) -> str:
    """Returns the layout of attention: by the name of a folder, else by its operation `einsum`."""
    for part in reversed(folder.parts):
        for name in ("split_einsum_v2", "split_einsum", "original"):
            if name in part.lower():
                return name
    block = next(iter(unet.program.functions.values())).block
    has_einsum = any(op.type == "einsum" for op in block.operations)
    return "split_einsum" if has_einsum else "original"


def _name(folder: Path) -> str:
    """Returns a name for pictures, of the folder that says something."""
    parts = [part for part in folder.absolute().parts
             if part not in ("compiled", "packages", "Resources", "original")
             and not part.startswith("split_einsum")]
    return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else "").strip(".-") or "bundle"
