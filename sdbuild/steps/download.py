"""download: a component's checkpoint, verified and in one form, whatever it came from.

Its artifact is `architecture.json`, what defines the network, and `weights.safetensors`; see
`sources/form.py` for their one form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdbuild.digest import canonical
from sdbuild.errors import SourceError
from sdbuild.family import Component
from sdbuild.recipe import Recipe
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
    """What decides which tensors are taken."""
    return {"prefixes": list(component.prefixes)} if component.folder else {}


def source(recipe: Recipe, component: Component) -> dict[str, Any]:
    """Where the checkpoint lies, and the part of it that is read."""
    return {"source": recipe.source, "reads": component.folder or component.name}


def run(job: Job) -> dict[str, Any]:
    """Writes the component's architecture and weights, or copies the resources."""
    from sdbuild.sources import RESOURCES, open_checkpoint

    checkpoint = open_checkpoint(job.places, dict(job.facts))
    if job.reads == RESOURCES:
        for name, content in checkpoint.resources().items():
            flat = name.replace("vae/config", "vae_config").rpartition("/")[2]
            (job.output / flat).write_bytes(content)
        return checkpoint.origin
    return _component(job, checkpoint) | checkpoint.origin


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
