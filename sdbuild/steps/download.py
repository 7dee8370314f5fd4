"""download: a component's checkpoint, verified and in one form, whatever it came from.

Its artifact is `architecture.json`, what defines the network, and `weights.safetensors`; see
`sources/form.py` for their one form.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.digest import canonical, digest_file
from sdbuild.errors import DigestMismatch, SourceError
from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.sources import RESOURCES, none_of, open_checkpoint
from sdbuild.step import Job

if TYPE_CHECKING:
    from sdbuild.sources import Checkpoint

VERSION = 2
TOOLS = ()
CODE = ("steps/download.py", "sources/*.py")
NEEDS: dict[str, str] = {}
GIVES = "checkpoint"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return True


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """What decides which tensors are taken, or what the scheduler is told."""
    if component.folder:
        return {"prefixes": list(component.prefixes)}
    return {"prediction_type": recipe.prediction_type} if recipe.prediction_type else {}


def source(recipe: Recipe, component: Component) -> dict[str, Any]:
    """Where the checkpoint lies, the part of it that is read, and what must come of it."""
    found = recipe.source_of(component)
    reading = {"source": found, "reads": component.folder or component.name}
    if recipe.lock is None:
        return reading
    places = recipe.lock.pinned(found.places)
    return reading | {
        "source": replace(found, places=places), "locked": recipe.lock.of(component.name),
    }


def run(job: Job) -> dict[str, Any]:
    """Writes the component's architecture and weights, or the resources, from the first place that
    has what is wanted.

    Raises:
        SourceError: none has it; DigestMismatch if what each has is not what is locked.
    """
    problems = []
    for place in job.places:
        try:
            return _taken_from(place, job)
        except SourceError as error:
            problems.append(error)
            for path in job.output.iterdir():
                path.unlink()
    raise none_of(problems)


def _taken_from(place: str, job: Job) -> dict[str, Any]:
    checkpoint = open_checkpoint([place], dict(job.facts), job.config)
    facts: dict[str, Any] = {}
    if job.reads == RESOURCES:
        _resources(job, checkpoint)
    else:
        facts = _component(job, checkpoint)
    if job.locked:
        _check_lock(checkpoint.place, job)
    return facts | checkpoint.origin


def _check_lock(place: str, job: Job) -> None:
    """Makes sure that what was written is what is locked."""
    found = {path.name: digest_file(path) for path in job.output.iterdir()}
    for name in sorted(found.keys() | job.locked.keys()):
        if found.get(name) != job.locked.get(name):
            raise DigestMismatch(
                f"{place}: {job.reads}: {name} is {found.get(name, 'missing')}, "
                f"but {job.locked.get(name, 'missing')} is locked",
                hint="if another checkpoint is meant: python -m sdbuild lock RECIPE",
                part=job.reads, file=name, found=found.get(name), locked=job.locked.get(name),
            )


def _resources(job: Job, checkpoint: Checkpoint) -> None:
    for name, content in checkpoint.resources().items():
        (job.output / name.rpartition("/")[2]).write_bytes(content)
    path = job.output / "scheduler_config.json"
    scheduler = _object(path)
    if "prediction_type" in job.params:
        scheduler["prediction_type"] = job.params["prediction_type"]
        path.write_text(json.dumps(scheduler, indent=2), "utf-8")
    if scheduler.get("prediction_type", "epsilon") is None:
        raise SourceError(
            f"{checkpoint.place}: a file of Stable Diffusion 2 does not say what its U-Net "
            "predicts, and a wrong guess draws noise",
            hint="prediction_type=v_prediction for models made for 768x768, "
                 "prediction_type=epsilon for those (-base) made for 512x512",
        )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SourceError(f"{path.name}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path.name}: expected a JSON object")
    return found


def _component(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    from sdbuild.sources import form, tensors

    architecture = form.architecture(job.reads, checkpoint.config(job.reads))
    (job.output / "architecture.json").write_bytes(canonical(architecture))
    found = form.tensors(job.reads, checkpoint.tensors(job.reads).values())
    taken = [t for t in found if t.name.startswith(tuple(job.params["prefixes"]))]
    if not taken:
        raise SourceError(
            f"{job.reads}: no tensor begins with {' or '.join(job.params['prefixes'])}"
        )
    return {"tensors": tensors.write(job.output / "weights.safetensors", taken)}
