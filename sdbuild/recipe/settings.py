"""What a command line asks for: the recipe, and what nothing's bytes depend on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdbuild.base.errors import StoreError
from sdbuild.base.machine import usable_bytes
from sdbuild.recipe.fields import PLACE_FIELDS, RAM_FIELD, REMOTE_FIELD, parse
from sdbuild.recipe.recipe import Recipe, load
from sdbuild.store.private import private_folder

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A recipe, its places, and the memory that steps may hold together.

    `report` and `remote` are None if none is asked for; the URL of `remote` may hold credentials.
    """

    recipe: Recipe
    cache: Path
    bundle: Path
    out: Path
    report: Path | None
    ram_bytes: int
    remote: str | None = field(default=None, repr=False)


def settings(words: Mapping[str, str]) -> Settings:
    """The settings in the `name=value` words of a command line.

    Raises:
        RecipeError: an unknown name, or a value that is not allowed.
    """
    recipe = load(words)
    places = {
        place.name: Path(parse(place, words[place.name], "on the command line"))
        for place in PLACE_FIELDS if place.name in words
    }
    return Settings(
        recipe=recipe,
        cache=places.get("cache", PROJECT / "cache").absolute(),
        bundle=places.get("bundle", PROJECT / "bundles" / recipe.variant).resolve(),
        out=places.get("out", Path("images") / f"{recipe.name}.png").absolute(),
        report=places["report"].absolute() if "report" in places else None,
        ram_bytes=parse(RAM_FIELD, words["ram"], "on the command line") if "ram" in words
        else usable_bytes(),
        remote=parse(REMOTE_FIELD, words["remote"], "on the command line") if "remote" in words
        else None,
    )


def database() -> Path:
    """Where doit keeps its database, which may be deleted at any time: in the project, or where
    every machine can write if that is read-only."""
    folder = PROJECT / "cache"
    if os.access(folder, os.W_OK):
        return folder / ".doit.json"
    try:
        return private_folder() / "doit.json"
    except StoreError:
        return Path(tempfile.mkdtemp(prefix="sdbuild-")) / "doit.json"
