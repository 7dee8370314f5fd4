"""merge: the checkpoint with LoRAs merged into its weights, streamed tensor by tensor."""

from __future__ import annotations

import os
from typing import Any

from sdbuild.engine.step import Job
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.sources import Source

VERSION = 1
TOOLS = ("numpy",)
NEEDS = {"checkpoint": "checkpoint"}
GIVES = "checkpoint"


def applies(recipe: Recipe, component: Component) -> bool:
    """Whether the recipe has this step for the component."""
    return bool(recipe.sources.loras) and component.takes_lora


def params(recipe: Recipe, component: Component) -> dict[str, Any]:
    """How strong each LoRA is, in the order in which they are added."""
    return {
        "component": component.name, "strengths": [lora.strength for lora in recipe.sources.loras],
    }


def source(recipe: Recipe, component: Component) -> dict[str, Any]:
    """Where the LoRAs lie."""
    places = tuple(lora.place for lora in recipe.sources.loras)
    return {"source": Source(places=places, are_files=True), "reads": ("loras",)}


def run(job: Job) -> dict[str, Any]:
    """Writes the checkpoint anew; the facts say how many tensors each LoRA changes.

    They also name what was ignored in the files. A LoRA may leave a component as it is: many are
    for the U-Net alone.
    """
    from pathlib import Path

    from sdbuild.checkpoints.loras import lora
    from sdbuild.checkpoints.loras.merged import Merged
    from sdbuild.safetensors import tensors

    checkpoint = job.inputs["checkpoint"]
    weights = tensors.table([checkpoint / "weights.safetensors"])
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    updates: dict[str, list[tuple[float, lora.Update]]] = {}
    counts: list[int] = []
    ignored: list[str] = []
    for place, strength in zip(job.places, job.params["strengths"], strict=True):
        read = lora.read(Path(place))
        found = lora.matched(place, read.updates.get(job.params["component"], []), shapes)
        counts.append(len(found))
        ignored += read.ignored
        for name, update in found.items():
            updates.setdefault(name, []).append((strength, update))
    made = [
        Merged(name=t.name, dtype=t.dtype, shape=t.shape, file=t.file, start=t.start,
               size_bytes=t.size_bytes, updates=tuple(updates[t.name]))
        if t.name in updates else t for t in weights.values()
    ]
    os.link(checkpoint / "architecture.json", job.output / "architecture.json")
    digests = tensors.write(job.output / "weights.safetensors", made)
    return {"merged": counts, "ignored": ignored, "tensors": digests}
