"""The part of a recipe that says what comes from outside: checkpoint, autoencoder, LoRAs, lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import outside_path
from sdbuild.checkpoints import is_hub, resolve_place
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.families import Component
from sdbuild.recipe.lockfile import Lock
from sdbuild.recipe.project import BUILT_IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a checkpoint lies: places in the order in which they are tried.

    `config` is a folder that says what a single file does not, or empty. If it is of plain files,
    all of them are read.
    """

    places: tuple[str, ...]
    config: str = ""
    are_files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA that is merged into the checkpoint, and how strongly."""

    place: str
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a bundle is made from.

    `lock` holds for the recipe's own checkpoint only. `prediction_type` stands in the place of what
    the checkpoint says of itself.
    """

    checkpoint: Source
    vae: Source | None
    loras: tuple[Lora, ...]
    lock: Lock | None
    prediction_type: str | None

    @classmethod
    def of(
        cls, fields: Mapping[str, Any], words: Mapping[str, str], folder: Path,
        lock: Lock | None = None,
    ) -> Sources:
        """The sources in a recipe's fields.

        A path is relative to where its user stands: the recipe in its `folder`, or, where `words`
        have it, the command line.

        Raises:
            RecipeError: a path that cannot be, or a config that nothing reads.
        """
        def absolute(name: str, place: str) -> str:
            return _absolute(name, place, Path.cwd() if name in words else folder)

        def source(name: str) -> Source:
            places = tuple(absolute(name, place) for place in fields[name] or ())
            return Source(places=places, config=config)

        config = absolute("config", fields["config"]) if fields["config"] else ""
        found = cls(
            checkpoint=source("source"),
            vae=source("vae") if fields["vae"] else None,
            loras=tuple(Lora(place=absolute("lora", place), strength=strength)
                        for place, strength in fields["lora"] or ()),
            lock=lock,
            prediction_type=fields["prediction_type"],
        )
        found._check_config()
        return found

    @property
    def checkpoints(self) -> tuple[Source, ...]:
        """All places that checkpoints are read from."""
        return (self.checkpoint, self.vae) if self.vae else (self.checkpoint,)

    def of_component(self, component: Component) -> Source:
        """Where the component's checkpoint lies."""
        return self.vae if self.vae and component.folder == "vae" else self.checkpoint

    def _check_config(self) -> None:
        places = [place for source in self.checkpoints for place in source.places]
        config = self.checkpoint.config
        if config and not any(place.endswith(SUFFIX) for place in places):
            raise RecipeError(
                f"config={config}: it says what a single file does not, and none is read",
                hint=f"omit config, or use a {SUFFIX} file: source=FILE or vae=FILE",
            )


def _absolute(name: str, place: str, folder: Path) -> str:
    """A place that `folder` no longer matters for; `name` is the field that it is given in."""
    if place.startswith("builtin:"):
        return str(BUILT_IN / place.removeprefix("builtin:"))
    found = resolve_place(place, folder)
    return found if is_hub(found) else str(outside_path(found, name))
