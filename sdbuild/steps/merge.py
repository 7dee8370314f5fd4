"""merge: the checkpoint with LoRAs merged into its weights, streamed tensor by tensor."""

from __future__ import annotations

import os
from typing import Any

from sdbuild.checkpoints.files import LORAS
from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Reading, Time
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.sources import Source


class Merge(ComponentStage):
    """Adds LoRAs to the weights."""

    version = 1
    summary = "add LoRAs to the checkpoint's weights"
    memory = Memory(100_000_000, largest=0.5)  # streams; a LoRA's two matrices are held whole
    time = Time(0.8, billion=15)
    tools = ("numpy",)
    gives = "checkpoint"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether there are LoRAs, and they may change the component."""
        return bool(recipe.sources.loras) and component.takes("lora")

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the checkpoint without them."""
        return {"checkpoint": Need("checkpoint")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the strength of each LoRA, in the order in which they are added, and its network:
        the U-Net that takes a ControlNet's residuals is changed as the plain one is."""
        family = {} if recipe.family.name == "sd" else {"family": recipe.family.name}
        return family | {"component": component.folder,
                         "strengths": [lora.strength for lora in recipe.sources.loras]}

    def reading(self, recipe: Recipe, component: Component) -> Reading:
        """Returns the locations of the LoRAs."""
        places = tuple(lora.place for lora in recipe.sources.loras)
        return Reading(source=Source(places=places, are_files=True), reads=(LORAS,))

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the checkpoint anew; the facts say how many tensors each LoRA changes.

        They also name what was ignored in the files. A LoRA may leave a component as it is: many
        are for the U-Net alone.
        """
        from pathlib import Path

        from sdbuild.checkpoints.loras import lora
        from sdbuild.checkpoints.loras.merged import Merged
        from sdbuild.safetensors import tensors

        checkpoint = job.inputs["checkpoint"]
        weights = tensors.table([checkpoint / WEIGHTS])
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
        os.link(checkpoint / ARCHITECTURE, job.output / ARCHITECTURE)
        digests = tensors.write(job.output / WEIGHTS, made)
        return {"merged": counts, "ignored": ignored, "tensors": digests}


STAGE = Merge()
