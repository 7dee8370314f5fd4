"""Bundles without a manifest: what it would say, inferred from models as hosts do, and reported.

Compiled models lie flat, as Apple's converter bundles them; packages are called as it names them:
`Stable_Diffusion_version_<model>_<part>.mlpackage`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import BundleError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SDXL
from sdbuild.bundle.hosts import SWIFT_SCHEDULE
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.rules.settings import SCALES
from sdbuild.checkpoints.defaults import SHIFTS
from sdbuild.checkpoints.packages import layout_in
from sdbuild.checkpoints.schedule import FLOW
from sdbuild.checkpoints.single_file import CLIP, FLOW_SCHEDULER
from sdbuild.families.model_names import NAMES, Part, part_of
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.read import read_model
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

NO_TOKENIZER = "no vocab.json and merges.txt: CLIP's own are used"
"""The note on models without a tokenizer."""

ASSUMED_SCHEDULE = "assumed: the schedule of "
ASSUMED_STEPS = "assumed: steps and guidance of a model that is not distilled"
"""The beginnings of notes that do not hold where a command knows these things."""

CELL_PX = 8
"""Pixels on the side of a latent."""
_END_TOKEN = "<|endoftext|>"
_DENOISERS = ("unet", "controlled_unet", "transformer")
_THIRD = {"transformer": "MultiModalDiffusionTransformer", "text_encoder_3": "TextEncoderT5"}


def infer(folder: Path, prediction_type: str | None = None) -> tuple[Bundle, list[str]]:
    """Returns the bundle of a folder of models, and what is assumed of it.

    Args:
        prediction_type: the output of a U-Net, noise if None.
    Raises:
        BundleError: there is no U-Net or transformer, or none that can be drawn with.
    """
    models = _models(folder)
    name = next((name for name in _DENOISERS if name in models), None)
    if name is None:
        found = ", ".join(sorted(models)) or "no models"
        raise BundleError(f"{shown(folder)}: no U-Net, found {found}",
                          hint="a bundle has Unet.mlmodelc, or a package that ends in _unet")
    net = read_model(models[name][0])
    traits = _of_transformer(net, folder) if name == "transformer" else \
        _of_unet(net, folder, prediction_type or "epsilon")
    tokenizer = tokenizer_in(folder)
    bundle = Bundle(
        folder=folder, name=name_of(folder), pad_token=_END_TOKEN, models=models,
        description=f"{name_of(folder)}, without a manifest",
        tokenizer=tokenizer or CLIP, **traits,
    )
    what = "transformer" if name == "transformer" else "U-Net"
    sized = f"family={bundle.family}, {bundle.width_px}x{bundle.height_px} pixels"
    notes = [
        f"{sized} and {bundle.attention} are inferred from the {what}"
        if bundle.attention in ("original", layout_of(net)) else
        f"{sized} are inferred from the {what}, {bundle.attention} from the folder's name",
        f"assumed: a scale factor of {bundle.scale_factor}",
        f"{ASSUMED_SCHEDULE}"
        f"{'Stable Diffusion 3, with shift 3,' if what == 'transformer' else 'Stable Diffusion,'} "
        f"and that the {what} predicts "
        f"{'a flow' if what == 'transformer' else bundle.prediction_type}",
        f"{ASSUMED_STEPS}; for LCM, Lightning, Turbo and other few-step models: "
        "steps=4 guidance=1",
    ]
    if tokenizer is None:
        notes.append(NO_TOKENIZER)
    return bundle, notes


def tokenizer_in(folder: Path) -> Path | None:
    """Returns the folder with the tokenizer of the models in a folder: itself, or its `Resources`,
    where Apple's converter puts the tokenizer of packages; None if neither has one."""
    return next((place for place in (folder, folder / "Resources")
                 if (place / "vocab.json").is_file() and (place / "merges.txt").is_file()), None)


def summary(bundle: Bundle) -> str:
    """Returns the most of what is inferred and assumed of a bundle, in a line."""
    return (f"assumed: {bundle.family} {bundle.width_px}x{bundle.height_px}, "
            f"{bundle.prediction_type}, not distilled (more: sdbuild check)")


def _of_unet(unet: Model, folder: Path, predicts: str) -> dict[str, Any]:
    family = family_of(unet, folder)
    return _sized(unet, folder, "sample") | {
        "family": family, "scale_factor": SCALES[family], "prediction_type": predicts,
        "attention": _attention(unet, folder), "defaults": {},
        "scheduler": dict(SWIFT_SCHEDULE) | {
            "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True,
            "steps_offset": 1}}


def _of_transformer(transformer: Model, folder: Path) -> dict[str, Any]:
    """Returns the fields of a bundle of Stable Diffusion 3; steps and guidance are those of the
    card of its medium model."""
    return _sized(transformer, folder, "latent_image_embeddings") | {
        "family": SD3, "scale_factor": SCALES[SD3], "shift_factor": SHIFTS[SD3],
        "prediction_type": FLOW, "attention": "original", "scheduler": FLOW_SCHEDULER,
        "defaults": {"scheduler": "flow_euler", "steps": 28, "guidance": 7.0}}


def _sized(net: Model, folder: Path, latents: str) -> dict[str, Any]:
    *_, height, width = sample_of(net, folder, latents)
    return {"width_px": width * CELL_PX, "height_px": height * CELL_PX}


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
    found |= {f"controlnet/{name}": (path,) for name, path in nets.items()}
    return found | _of_third(folder)


def _of_third(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the models that only Stable Diffusion 3 has."""
    return {component: (path,) for path in contents(folder)
            for component, name in _THIRD.items()
            if path.name in (name + COMPILED, name + PACKAGE) and path.is_dir()}


def _named(folder: Path) -> Iterator[tuple[Part, Path]]:
    """Yields each model with what it is."""
    for path in contents(folder):
        name, dot, suffix = path.name.rpartition(".")
        if dot + suffix in (COMPILED, PACKAGE) and path.is_dir() and (part := part_of(name)):
            yield part, path


def sample_of(unet: Model, folder: Path, name: str = "sample") -> tuple[int, ...]:
    """Returns the shape of a U-Net's latents, its input of a name.

    Raises:
        BundleError: it takes none.
    """
    shape = unet.input_shapes.get(name, ())
    if len(shape) != 4:
        raise BundleError(f"{shown(folder)}: no input {name} of four dimensions, "
                          f"found {', '.join(unet.input_shapes)}",
                          hint="images are generated of Stable Diffusion 1.x, 2.x, XL and 3 only")
    return shape


def family_of(unet: Model, folder: Path) -> str:
    """Returns the family of a U-Net, by its inputs.

    Raises:
        BundleError: it is of none that is drawn.
    """
    shapes: Mapping[str, tuple[int, ...]] = unet.input_shapes
    if "latent_image_embeddings" in shapes:
        raise BundleError(f"{shown(folder)}: its U-Net has the inputs of a transformer of {SD3}",
                          hint="it is called MultiModalDiffusionTransformer in bundles")
    if "time_ids" not in shapes:
        return SD
    return REFINER if shapes["time_ids"][-1:] == (5,) else SDXL


def layout_of(unet: Model) -> str:
    """Returns the layout of a U-Net's attention, by its operation `einsum`."""
    block = next(iter(unet.program.functions.values())).block
    has_einsum = any(op.type == "einsum" for op in block.operations)
    return "split_einsum" if has_einsum else "original"


def _attention(unet: Model, folder: Path) -> str:
    """Returns the layout of a U-Net's attention; which of the split ones it is, only the name of
    the folder says."""
    found, named = layout_of(unet), layout_in(folder.parts) or ""
    return named if found != "original" and named.startswith(found) else found


def name_of(folder: Path) -> str:
    """Returns a name for a bundle in a folder, that of the folder that says something."""
    parts = [part for part in folder.absolute().parts
             if part not in ("compiled", "packages", "Resources", "original")
             and not part.startswith("split_einsum")]
    return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else "").strip(".-") or "bundle"
