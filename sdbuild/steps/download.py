"""download: a component's checkpoint, verified and in one form, whatever it came from.

Its artifact is `architecture.json`, what defines the network, and `weights.safetensors`. What does
not define the network (where a config was saved, by which version) is left out, so that a trace
is shared by all checkpoints of an architecture.
"""

from __future__ import annotations

import json
from typing import Any

from sdbuild.digest import canonical
from sdbuild.errors import SourceError
from sdbuild.family import Component
from sdbuild.recipe import Recipe
from sdbuild.step import Job

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
    from sdbuild.sources import folder

    assert job.source is not None
    names = folder.files(job.source, job.reads)
    if job.reads == folder.RESOURCES:
        for name in names:
            target = job.output / name.replace("vae/config", "vae_config").rpartition("/")[2]
            target.write_bytes((job.source / name).read_bytes())
        return {}
    return _component(job, *names)


def _component(job: Job, config: str, *weights: str) -> dict[str, Any]:
    from sdbuild.sources import tensors

    assert job.source is not None
    (job.output / "architecture.json").write_bytes(_architecture(job, config))
    found = tensors.table(job.source / name for name in weights)
    taken = [t for t in found.values() if t.name.startswith(tuple(job.params["prefixes"]))]
    if not taken:
        raise SourceError(
            f"{weights[0]}: no tensor begins with {' or '.join(job.params['prefixes'])}"
        )
    return {"tensors": tensors.write(job.output / "weights.safetensors", taken)}


def _architecture(job: Job, config: str) -> bytes:
    assert job.source is not None
    path = job.source / config
    try:
        found = json.loads(path.read_text("utf-8"))
        name = found.get("_class_name") or found["architectures"][0]
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise SourceError(f"{path}: not the config of a network: {error!r}") from error
    kept = {k: v for k, v in found.items() if not k.startswith("_") and k not in _IRRELEVANT}
    return canonical({"class": name, "config": kept})
