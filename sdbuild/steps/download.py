"""download: a component's checkpoint, verified and in one form, whatever it came from.

Its artifact is `architecture.json`, what defines the network, and `weights.safetensors`. What does
not define the network (where a config was saved, by which version) is left out, so that a trace
is shared by all checkpoints of an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.digest import canonical
from sdbuild.errors import SourceError
from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.step import Job

if TYPE_CHECKING:
    from sdbuild.sources import Checkpoint

VERSION = 1
TOOLS = ()
CODE = ("steps/download.py", "sources/*.py")
NEEDS: dict[str, str] = {}
GIVES = "checkpoint"

_IRRELEVANT = frozenset({"transformers_version", "torch_dtype", "dtype", "architectures"})


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
    from sdbuild.sources import tensors

    found = architecture(job.reads, checkpoint.config(job.reads))
    (job.output / "architecture.json").write_bytes(canonical(found))
    prefixes = tuple(job.params["prefixes"])
    taken = [t for n, t in checkpoint.tensors(job.reads).items() if n.startswith(prefixes)]
    if not taken:
        raise SourceError(
            f"{job.reads}: no tensor begins with {' or '.join(prefixes)}"
        )
    return {"tensors": tensors.write(job.output / "weights.safetensors", taken)}


def architecture(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What defines a network: its class, and of its config what is not about the file.

    Raises:
        SourceError: it names no network.
    """
    try:
        name = config.get("_class_name") or config["architectures"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise SourceError(f"{part}/config.json: it does not name a network") from error
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in _IRRELEVANT}
    return {"class": name, "config": kept}
