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
from sdbuild.checkpoints.packages import layout_in
from sdbuild.checkpoints.single_file import CLIP
from sdbuild.families.model_names import NAMES, Part, part_of
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.read import read_model
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

CELL_PX = 8
"""Pixels on the side of a latent."""
_END_TOKEN = "<|endoftext|>"


def infer(folder: Path, prediction_type: str | None = None) -> tuple[Bundle, list[str]]:
    """Returns the bundle of a folder of models, and what is assumed of it.

    Args:
        prediction_type: the output of the U-Net, noise if None.
    Raises:
        BundleError: there is no U-Net, or none that can be drawn with.
    """
    models = _models(folder)
    unets = models.get("unet") or models.get("controlled_unet")
    if unets is None:
        found = ", ".join(sorted(models)) or "no models"
        raise BundleError(f"{shown(folder)}: no U-Net, found {found}",
                          hint="a bundle has Unet.mlmodelc, or a package that ends in _unet")
    unet = read_model(unets[0])
    family = family_of(unet, folder)
    *_, height, width = sample_of(unet, folder)
    attention = layout_in(folder.parts) or layout_of(unet)
    has_own = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    predicts = prediction_type or "epsilon"
    bundle = Bundle(
        folder=folder, name=_name(folder), family=family, width_px=width * CELL_PX,
        height_px=height * CELL_PX, attention=attention, scale_factor=SCALES[family],
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
    by_part = dict(_named(folder))
    found: dict[str, tuple[Path, ...]] = {}
    for component in NAMES:
        chunks = [by_part.get(Part(component, number)) for number in (1, 2)]
        whole = by_part.get(Part(component))
        if chunks[0] is not None and chunks[1] is not None:
            found[component] = (chunks[0], chunks[1])
        elif whole is not None:
            found[component] = (whole,)
    nets = {path.name.rpartition(".")[0]: path for path in contents(folder)
            if path.name.startswith("ControlNet_") and path.suffix in (COMPILED, PACKAGE)}
    if (folder / "controlnet").is_dir():
        nets |= {path.name.rpartition(".")[0]: path
                 for path in contents(folder / "controlnet", COMPILED)}
    return found | {f"controlnet/{name}": (path,) for name, path in nets.items()}


def _named(folder: Path) -> Iterator[tuple[Part, Path]]:
    """Yields each model with what it is."""
    for path in contents(folder):
        name, dot, suffix = path.name.rpartition(".")
        if dot + suffix in (COMPILED, PACKAGE) and path.is_dir() and (part := part_of(name)):
            yield part, path


def sample_of(unet: Model, folder: Path) -> tuple[int, ...]:
    """Returns the shape of a U-Net's latents.

    Raises:
        BundleError: it takes none.
    """
    shape = unet.input_shapes.get("sample", ())
    if len(shape) != 4:
        raise BundleError(f"{shown(folder)}: the U-Net has no input sample of four dimensions, "
                          f"found {', '.join(unet.input_shapes)}",
                          hint="images are generated of Stable Diffusion 1.x, 2.x and XL only")
    return shape


def family_of(unet: Model, folder: Path) -> str:
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


def layout_of(unet: Model) -> str:
    """Returns the layout of a U-Net's attention, by its operation `einsum`."""
    block = next(iter(unet.program.functions.values())).block
    has_einsum = any(op.type == "einsum" for op in block.operations)
    return "split_einsum" if has_einsum else "original"


def _name(folder: Path) -> str:
    """Returns a name for pictures, of the folder that says something."""
    parts = [part for part in folder.absolute().parts
             if part not in ("compiled", "packages", "Resources", "original")
             and not part.startswith("split_einsum")]
    return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else "").strip(".-") or "bundle"
