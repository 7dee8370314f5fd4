"""embed: learned words, written into the text encoders' tables and the tokenizer's two files."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.checkpoints.files import EMBEDDINGS
from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS
from sdbuild.checkpoints.resources import TOKENIZER, WORDS, file_name, vocabulary_file
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Reading, Time
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.sources import Source
from sdbuild.store.disk import link_out

if TYPE_CHECKING:
    from sdbuild.checkpoints.embeddings.embedding import Embedding
    from sdbuild.checkpoints.embeddings.words import Spoken, Words

_RESOURCES = "resources"
_TABLE = "embeddings.token_embedding.weight"
_VOCABULARY, _MERGES = file_name(TOKENIZER.vocabulary), file_name(TOKENIZER.merges)


class Embed(ComponentStage):
    """Gives the text encoders and the tokenizer words that they do not have."""

    version = 1
    summary = "write embeddings into text encoders and tokenizer"
    memory = Memory(100_000_000)  # streams
    time = Time(0.5, billion=5)
    tools = ("numpy",)
    gives = "checkpoint"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Whether embeddings are given, for a text encoder or the tokenizer."""
        return bool(recipe.sources.embeddings) and (
            component.takes("embedding") or component.name == _RESOURCES)

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns what is without them."""
        return {"checkpoint": Need("checkpoint")}

    def borrows(self, recipe: Recipe, component: Component) -> dict[str, Need]:
        """Returns the tokenizer, which says what no prompt reaches."""
        return {name: Need("checkpoint", name, component=_RESOURCES)
                for name in (_VOCABULARY, _MERGES)}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the word of each file, or the file's name where none is given."""
        return {"component": component.folder, "family": recipe.family.name,
                "words": [{"word": e.word} if e.word else {"file": Path(e.place).stem}
                          for e in recipe.sources.embeddings]}

    def reading(self, recipe: Recipe, component: Component) -> Reading:
        """Returns the locations of the files."""
        places = tuple(embedding.place for embedding in recipe.sources.embeddings)
        return Reading(source=Source(places=places, are_files=True), reads=(EMBEDDINGS,))

    def run(self, job: Job) -> dict[str, Any]:
        """Writes a text encoder's checkpoint anew, or the resources; the facts say what is written
        in a prompt for each embedding.

        Raises:
            SourceError: an embedding is for another model, or a word cannot be added.
        """
        from sdbuild.checkpoints.embeddings.added import added
        from sdbuild.checkpoints.embeddings.words import Words

        vocabulary = vocabulary_file(TOKENIZER.vocabulary, job.inputs[_VOCABULARY].read_bytes())
        words = Words(vocabulary, job.inputs[_MERGES].read_text("utf-8"))
        found = list(added(job.places, job.params["words"], words))
        return _write_encoder(job, found) if job.params["component"] else \
            _write_resources(job, words, found)


STAGE = Embed()


def _write_encoder(job: Job, added: list[tuple[Embedding, list[Spoken]]]) -> dict[str, Any]:
    from sdbuild.checkpoints.embeddings.embedding import expect_width
    from sdbuild.checkpoints.embeddings.written import Written, rows_of
    from sdbuild.safetensors import tensors

    checkpoint = job.inputs["checkpoint"]
    weights = tensors.table([checkpoint / WEIGHTS])
    [table] = [tensor for name, tensor in weights.items() if name.endswith(_TABLE)]
    rows: dict[int, bytes] = {}
    for embedding, spoken in added:
        vectors = embedding.vectors[job.params["component"]]
        expect_width(vectors, table.shape[-1])
        for data, each in zip(rows_of(vectors, table.dtype), spoken, strict=True):
            rows |= dict.fromkeys(each.rows, data)
    kept = {each.name: getattr(table, each.name) for each in fields(table)}
    made = weights | {table.name: Written(**kept, rows=rows)}
    os.link(checkpoint / ARCHITECTURE, job.output / ARCHITECTURE)
    return {"tensors": tensors.write(job.output / WEIGHTS, made.values())}


def _write_resources(
    job: Job, words: Words, added: list[tuple[Embedding, list[Spoken]]]
) -> dict[str, Any]:
    for path in sorted(job.inputs["checkpoint"].iterdir()):
        if path.name not in (_VOCABULARY, _MERGES):
            link_out(path, job.output / path.name)
    (job.output / _VOCABULARY).write_bytes(words.vocabulary)
    (job.output / _MERGES).write_bytes(words.merges)
    said = [[each.word for each in spoken] for _, spoken in added]
    (job.output / WORDS).write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    return {"words": said}
