"""The settings of a command line: the recipe, and those that no bytes depend on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdbuild.base.errors import StoreError
from sdbuild.base.machine import usable_bytes
from sdbuild.base.paths import outside_path, real_path
from sdbuild.recipe.fields import PLACE_FIELDS, PREDICTOR_FIELD, RAM_FIELD, REMOTE_FIELD
from sdbuild.recipe.project import Project
from sdbuild.recipe.recipe import Recipe, load
from sdbuild.store import Store
from sdbuild.store.json_cache import Notes
from sdbuild.store.private import private_folder

_PLACES = {field.name: field for field in PLACE_FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A recipe, its places, and the memory that steps may hold together; `words` are those of the
    command line.

    `report`, `trace` and `remote` are None if none is asked for; the URL of `remote` may hold
    credentials.
    """

    recipe: Recipe
    cache: Path
    bundle: Path
    out: Path
    report: Path | None
    trace: Path | None
    ram_bytes: int
    predictor: str
    words: Mapping[str, str] = field(default_factory=dict)
    remote: str | None = field(default=None, repr=False)


def settings(words: Mapping[str, str]) -> Settings:
    """Returns the settings of a command line, the environment and the project, in this order.

    Raises:
        RecipeError: an unknown name, or a value that is not allowed.
        SourceError: a source without a model cannot be read.
    """
    project = Project.here()
    places = {name: project.path(field, words) for name, field in _PLACES.items()}
    cache = places["cache"] or project.cache
    recipe = load(words, project, Notes(Store(cache), "hub"))
    ram = project.setting(RAM_FIELD, words)
    return Settings(
        recipe=recipe,
        cache=cache,
        bundle=real_path(places["bundle"] or project.bundles / recipe.variant),
        out=places["out"] or Path("images", f"{recipe.name}.png").absolute(),
        report=places["report"],
        trace=places["trace"],
        ram_bytes=ram[0] if ram else usable_bytes(),
        predictor=predictor(project, words),
        words=dict(words),
        remote=_remote(project, words),
    )


def predictor(project: Project, words: Mapping[str, str]) -> str:
    """Returns the runtime of the models.

    Raises:
        RecipeError: a value that is not allowed.
    """
    found = project.setting(PREDICTOR_FIELD, words)
    return str(found[0] if found else PREDICTOR_FIELD.default)


def store_folder(words: Mapping[str, str]) -> Path:
    """Returns the folder of the store, for commands that need no recipe.

    Raises:
        RecipeError: a value that is not allowed.
    """
    project = Project.here()
    return project.path(_PLACES["cache"], words) or project.cache


def _remote(project: Project, words: Mapping[str, str]) -> str | None:
    """Returns the URL or folder of the shared store; a folder in `sdbuild.toml` is relative to
    it."""
    found = project.setting(REMOTE_FIELD, words)
    if found is None:
        return None
    remote, base = found
    if "://" in remote:
        return remote
    outside_path(base / remote, REMOTE_FIELD.name)
    return remote if base == Path.cwd() else str(base / remote)


def database() -> Path:
    """Returns the file of doit's database, which may be deleted at any time: in the project, or
    where every machine can write if that is read-only, or another user's."""
    folder = Project.here().cache
    file = folder / ".doit.json"
    if os.access(file, os.R_OK | os.W_OK) or (
            os.access(folder, os.W_OK) and not os.path.lexists(file)):
        return file
    try:
        return private_folder() / "doit.json"
    except StoreError:
        return Path(tempfile.mkdtemp(prefix="sdbuild-")) / "doit.json"
