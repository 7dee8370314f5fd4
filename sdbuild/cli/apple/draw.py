"""`sdbuild pipeline`: an image as Apple's Python pipeline draws it, with the name it gives it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdbuild.base.errors import BundleError, RecipeError
from sdbuild.base.garbage import importing
from sdbuild.base.parsing import shown
from sdbuild.base.paths import outside_path
from sdbuild.bundle.inferred import ASSUMED_SCHEDULE, ASSUMED_STEPS, NO_TOKENIZER
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.places import opened
from sdbuild.bundle.schedulers import SCHEDULERS as OURS
from sdbuild.cli.api import Bundle as Opened
from sdbuild.cli.apple import named, names
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.layout import NOTE
from sdbuild.cli.apple.programs import SCHEDULERS
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.recipe.settings import predictor

Say = Callable[[str], None]
_LONGEST_BYTES = 180
_FINISHED = {
    "stable-diffusion-v1-4": "CompVis/stable-diffusion-v1-4",
    "stable-diffusion-1-4": "CompVis/stable-diffusion-v1-4",
    "stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-2-base": "stabilityai/stable-diffusion-2-base",
    "stable-diffusion-2-1-base": "stabilityai/stable-diffusion-2-1-base",
    "stable-diffusion-xl-base": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""The checkpoints of Apple's finished models, by what their repositories are called."""


def draw(flags: Given, say: Say) -> int:
    """Draws the image that flags ask for; the exit status.

    Raises:
        SDBuildError: the models cannot draw it; says why.
    """
    from sdbuild.recipe.project import Project

    with importing():
        from sdbuild.runtime.generate import generate

    _check(flags)
    _refuse_finished(flags.model_version)
    folder = outside_path(flags.i, "-i")
    with _of_version(folder, flags.model_version) as (place, is_ours), opened(
            place, _variant(place, flags.model_sources),
            flags.words.get("prediction_type")) as (found, notes), \
            tempfile.TemporaryDirectory(prefix="sdbuild-") as work:
        has_all = (found.folder / MANIFEST).is_file()
        files = {} if has_all else named.resources(flags, say)
        if NO_TOKENIZER in notes and (own := named.tokenizer(files, Path(work))):
            notes.remove(NO_TOKENIZER)
            found = dataclasses.replace(found, tokenizer=own)
        bundle, scheduler = _with_schedule(found, flags, files, is_ours)
        known = [ASSUMED_STEPS, *([ASSUMED_SCHEDULE] if bundle is not found else [])]
        for note in notes:
            if not note.startswith(tuple(known)):
                say(f"{found.name}: {note}")
        request = Opened(bundle).request(_settings(flags, bundle, scheduler))
        out = image_path(flags)
        for path in generate(bundle, request, out, None,
                             predictor(Project.here(), flags.words)):
            say(str(path))
    return 0


def image_path(flags: Given) -> Path:
    """Returns the image's path, which tells how it was made.

    Source:
        apple/ml-stable-diffusion at e12202c, `pipeline.py`, `get_image_path`.
    """
    words = _cut("_".join(flags.prompt.replace("/", "_").split(" ")))
    name = (f"randomSeed_{flags.seed}_computeUnit_{flags.compute_unit}"
            f"_modelVersion_{flags.model_version.replace('/', '_')}")
    if flags.scheduler is not None:
        name += f"_customScheduler_{flags.scheduler}"
        name += f"_numInferenceSteps{flags.num_inference_steps}"
    folder = words if words.strip(".") else "_"
    return outside_path(flags.o, "-o") / folder / f"{_cut(name)}.png"


def _cut(name: str) -> str:
    """Returns a name that file systems take."""
    return name.encode()[:_LONGEST_BYTES].decode(errors="ignore")


def _check(flags: Given) -> None:
    """Refuses ControlNets without images.

    Raises:
        RecipeError: there are more of one than of the other.
    """
    nets, images = flags.controlnet or [], flags.controlnet_inputs or []
    if len(nets) != len(images):
        raise RecipeError(f"--controlnet names {len(nets)}, and --controlnet-inputs {len(images)} "
                          "images, expected one for each", hint="they go together in order")


def _refuse_finished(version: str) -> None:
    """Refuses a repository of finished models where the checkpoint is meant.

    Raises:
        RecipeError: it is one, by its name; says which checkpoint is meant, if that is known.
    """
    name = version.partition("/")[2]
    if not name.startswith("coreml-"):
        return
    known = _FINISHED.get(name.removeprefix("coreml-").removesuffix("-palettized"))
    raise RecipeError(
        f"--model-version {version}: finished models for Core ML, expected the checkpoint that "
        "they were made from",
        hint=f"--model-version {known}" if known else "the repository's card names it")


@contextmanager
def _of_version(folder: Path, version: str) -> Iterator[tuple[Path, bool]]:
    """The folder to draw with, and whether `torch2coreml` made what is in it; of packages of
    several checkpoints, those of one.

    Raises:
        BundleError: there are several, and none of this name.
    """
    unets = [path.name for path in (folder.iterdir() if folder.is_dir() else ())
             if path.name.endswith((f"unet{PACKAGE}", f"unet_chunk1{PACKAGE}"))]
    start = names.package(version, "unet").removesuffix(f"unet{PACKAGE}")
    versions = {name.removesuffix(PACKAGE).removesuffix("_chunk1").removesuffix("unet")
                .removesuffix("control-") for name in unets}
    is_ours = (folder / NOTE).is_file()
    if len(versions) < 2:
        yield folder, is_ours
        return
    if start not in versions:
        raise BundleError(f"{folder}: packages of {len(versions)} checkpoints in it, and none of "
                          f"{version}", hint="--model-version says which one is meant")
    with tempfile.TemporaryDirectory(prefix=".sdbuild-", dir=folder) as made:
        chosen = Path(made, "packages")
        for path in folder.iterdir():
            if path.suffix == PACKAGE and path.name.startswith((start, "ControlNet_")):
                shutil.copytree(path, chosen / path.name, copy_function=os.link)
        yield chosen, is_ours


def _variant(folder: Path, sources: str | None) -> str | None:
    """Returns the folder in it whose models are used: itself if it has some."""
    own = {path.suffix for path in (folder.iterdir() if folder.is_dir() else ())}
    if sources == "compiled" and COMPILED not in own:
        return names.RESOURCES
    return "" if own & {COMPILED, PACKAGE} else None


def _with_schedule(
    bundle: Bundle, flags: Given, files: Mapping[str, bytes], is_ours: bool
) -> tuple[Bundle, str]:
    """Returns the bundle with the schedule of the checkpoint, and the scheduler to use: what flags
    say, or the checkpoint's own.

    Args:
        files: of the checkpoint, none where the bundle has a manifest.

    Raises:
        SourceError: the schedule is not sound.
    """
    config = named.schedule(files, flags.model_version)
    if config:
        predicts = flags.words.get("prediction_type") or (
            "epsilon" if is_ours else str(config.get("prediction_type", "epsilon")))
        bundle = dataclasses.replace(bundle, scheduler=config, prediction_type=predicts)
    kind = config.get("_class_name", bundle.scheduler.get("_class_name"))
    own = next((s.name for s in OURS.values() if s.kind == kind),
               "pndm" if bundle.family == "sd" else "euler")
    return bundle, SCHEDULERS.get(flags.scheduler or "", own)


def _settings(flags: Given, bundle: Bundle, scheduler: str) -> dict[str, Any]:
    own = {name: value for name, value in flags.words.items()
           if name not in ("predictor", "prediction_type")}
    controls = [f"{_net(bundle, net)}:{image}" for net, image in zip(
        flags.controlnet or (), flags.controlnet_inputs or (), strict=True)]
    return own | {
        "prompt": flags.prompt, "negative": flags.negative_prompt or "", "seed": flags.seed,
        "steps": flags.num_inference_steps, "guidance": flags.guidance_scale,
        "host": "apple-python", "scheduler": scheduler,
        **({"control": ",".join(controls)} if controls else {}),
    }


def _net(bundle: Bundle, net: str) -> str:
    """Returns what a bundle calls a ControlNet that is named as it was converted.

    Raises:
        BundleError: it has no such ControlNet.
    """
    known = [name.partition("/")[2] for name in bundle.models if name.startswith("controlnet/")]
    for name in (Path(names.compiled_controlnet(net)).stem,
                 names.controlnet_package(net).removesuffix(PACKAGE), net):
        if name in known:
            return name
    raise BundleError(f"--controlnet {shown(net)}: {bundle.folder} has none of this name",
                      hint=f"it has: {', '.join(known) or 'none'}")
