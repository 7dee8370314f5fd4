"""The part of a recipe that says what comes from outside: checkpoint, autoencoder, LoRAs,
embeddings, lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import outside_path
from sdbuild.checkpoints import is_hub, resolve_place
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.families import Component, Family
from sdbuild.recipe.components import controlnet_name
from sdbuild.recipe.fields import Field
from sdbuild.recipe.lockfile import Lock
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.values import as_word, embeddings, loras, named_path, places

ELSEWHERE = ("unet", "vae", "refiner_source")
"""The fields of what may come from another place than the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The location of a checkpoint: candidates in the order in which they are tried.

    `config` is a folder that says what a single file does not, or empty. If it is of plain files,
    all of them are read. `beside` is where the checkpoint may be that a network is used with which
    is published alone.
    """

    places: tuple[str, ...]
    config: str = ""
    are_files: bool = False
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA that is merged into the checkpoint, and how strongly."""

    place: str
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A file of vectors that are written into text encoders, and the word for them; empty if the
    file has its own."""

    place: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The checkpoints, LoRAs and embeddings that a bundle is made from.

    `elsewhere` has the places of parts that do not come with the checkpoint, by field.
    `lock` holds for the recipe's own checkpoint only. `prediction_type` stands in the place of what
    the checkpoint says of itself, and `licence` in that of what its card says.
    `controlnets` are called as hosts call them.
    """

    checkpoint: Source
    elsewhere: Mapping[str, Source]
    controlnets: Mapping[str, Source]
    loras: tuple[Lora, ...]
    embeddings: tuple[Embedding, ...]
    lock: Lock | None
    prediction_type: str | None
    licence: str | None

    @classmethod
    def of(
        cls, fields: Mapping[str, Any], words: Mapping[str, str], folder: Path,
        lock: Lock | None = None,
    ) -> Sources:
        """Returns the sources in a recipe's fields.

        A path is relative to where its user stands: the recipe in its `folder`, or, where `words`
        have it, the command line.

        Raises:
            RecipeError: a path that cannot be, a config that nothing reads, or two ControlNets of
                one name.
        """
        def absolute(name: str, place: str) -> str:
            return absolute_place(name, place, words, folder)

        def source(name: str) -> Source:
            places = tuple(absolute(name, place) for place in fields[name] or ())
            return Source(places=places, config=config)

        config = absolute("config", fields["config"]) if fields["config"] else ""
        found = cls(
            checkpoint=source("source"),
            elsewhere={name: source(name) for name in ELSEWHERE if fields[name]},
            controlnets=_controlnets([absolute("controlnet", place)
                                      for place in fields["controlnet"] or ()]),
            loras=tuple(Lora(place=absolute("lora", place), strength=strength)
                        for place, strength in fields["lora"] or ()),
            embeddings=tuple(Embedding(place=absolute("embedding", place), word=word)
                             for place, word in fields["embedding"] or ()),
            lock=lock,
            prediction_type=fields["prediction_type"],
            licence=fields["licence"],
        )
        found._check_config()
        return found

    @property
    def checkpoints(self) -> tuple[Source, ...]:
        """All places that checkpoints are read from."""
        return (self.checkpoint, *self.elsewhere.values(), *self.controlnets.values())

    def of_component(self, component: Component) -> Source:
        """Returns the source of the component's checkpoint."""
        if component.instance:
            return self.controlnets[component.instance]
        found = self.elsewhere.get(component.source, self.checkpoint)
        is_used_with = component.source == "unet" and found is not self.checkpoint
        return replace(found, beside=self.checkpoint.places) if is_used_with else found

    def check_places(self, components: Iterable[Component], family: Family) -> None:
        """Makes sure that what does not come with the checkpoint comes from somewhere, and that
        nothing else does.

        Raises:
            RecipeError: a component has no place, or a place is for none of the family's.
        """
        for name in self.elsewhere:
            if name not in {component.source for component in family.components}:
                raise RecipeError(
                    f"{name} for {family.title}, expected none: it has no such component",
                    hint=f"leave {name} out; its components are: "
                         f"{', '.join(component.name for component in family.components)}")
        for component in components:
            if component.comes_with in ELSEWHERE and component.comes_with not in self.elsewhere:
                raise RecipeError(
                    f"components: {component.name} does not come with the checkpoint, and there is "
                    f"no {component.source}", hint=f"{component.source}=PLACE is its location")

    def _check_config(self) -> None:
        places = [place for source in self.checkpoints for place in source.places]
        config = self.checkpoint.config
        if config and not any(place.endswith(SUFFIX) for place in places):
            raise RecipeError(
                f"config={config}: it says what a single file does not, and none is read",
                hint=f"omit config, or use a {SUFFIX} file: source=FILE or vae=FILE",
            )


def _controlnets(places: Sequence[str]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for place in places:
        name = controlnet_name(place)
        if name in found:
            raise RecipeError(
                f"controlnet: {found[name].places[0]} and {place} are both called {name}",
                hint="apps find a ControlNet by its name: rename one of the folders or files")
        found[name] = Source(places=(place,))
    return found


def absolute_place(name: str, place: str, words: Mapping[str, str], folder: Path) -> str:
    """Returns the place in the field `name` as one that no folder matters for any more.

    Args:
        folder: the recipe's, to which the place is relative unless `words` have it.

    Raises:
        RecipeError: a path that cannot be.
    """
    folder = Path.cwd() if name in words else folder
    if place.startswith("builtin:"):
        return str(BUILT_IN / place.removeprefix("builtin:"))
    found = resolve_place(place, folder)
    return found if is_hub(found) else str(outside_path(found, name))


def word_of(field: Field, value: Any, folder: Path) -> str:
    """Returns a value that a file in `folder` has for a field as the command line has it, from
    which paths are relative to the current folder.

    Raises:
        RecipeError: no text stands for it.
    """
    if field.parse is loras:
        found = field.parse(value)
        return ",".join(f"{_seen_from_here(place, folder)}:{strength}" for place, strength in found)
    if field.parse is embeddings:
        return ",".join(_seen_from_here(place, folder) + (word and f":{word}")
                        for place, word in field.parse(value))
    if field.parse is places:
        return ",".join(_seen_from_here(place, folder) for place in field.parse(value))
    if field.parse is named_path:
        return _seen_from_here(field.parse(value), folder)
    return as_word(field.name, value)


def _seen_from_here(place: str, folder: Path) -> str:
    if place.startswith("builtin:") or is_hub(place):
        return place
    found, here = Path(resolve_place(place, folder)), Path.cwd()
    return str(found.relative_to(here)) if found.is_relative_to(here) else str(found)
