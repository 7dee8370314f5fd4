"""The project that a command works in: where its recipes, store and bundles are.

A project is the nearest folder above the current one with `sdbuild.toml`, or with recipes in
`recipes/`. Outside any, the store is in the platform's folder for caches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import is_system_file
from sdbuild.base.parsing import read_file, shown, toml_table
from sdbuild.base.paths import outside_path, real_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.checkpoints import expand_user
from sdbuild.recipe.fields import MODEL_FIELD, SETTING_FIELDS, Field, parse

IMPORT_ROOT = Path(__file__).parents[2]
"""The folder that Python finds this package in: the clone, or site-packages."""

_WHEEL = Path(__file__).parents[1] / "builtin"
BUILT_IN = _WHEEL if _WHEEL.is_dir() else IMPORT_ROOT / "recipes"
"""The recipes that come with sdbuild: a wheel has them inside the package."""

DEFAULT_MODEL = "tiny-emoji"
FILE = "sdbuild.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The folders of a project, and the settings in its `sdbuild.toml`.

    `recipes` are the folders that recipes are found in by name, the project's own first.
    """

    root: Path
    recipes: tuple[Path, ...]
    cache: Path
    bundles: Path
    table: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Project:
        """Returns the project of the current folder.

        Raises:
            RecipeError: its `sdbuild.toml` cannot be read, or has an unknown setting.
        """
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / FILE).is_dir():
                raise RecipeError(f"{folder / FILE}: a folder, expected a file",
                                  hint="Docker makes a folder where a mounted file does not exist")
            if (folder / FILE).is_file() or _recipes(folder / "recipes"):
                own = () if real_path(folder / "recipes") == real_path(BUILT_IN) \
                    else (folder / "recipes",)
                return cls(root=folder, recipes=(*own, BUILT_IN), cache=folder / "cache",
                           bundles=folder / "bundles", table=_table(folder / FILE))
        return cls(root=here, recipes=(BUILT_IN,), cache=_user_cache() or here / "cache",
                   bundles=here / "bundles")

    @property
    def default_model(self) -> str:
        """The recipe to build if the command line names none."""
        found = self.setting(MODEL_FIELD, {})
        return DEFAULT_MODEL if found is None else str(found[0])

    def names_model(self, words: Mapping[str, str]) -> bool:
        """Whether the command line or the environment names a recipe, so that no default holds."""
        return replace(self, table={}).setting(MODEL_FIELD, words) is not None

    def names(self) -> list[str]:
        """Returns the recipes that are found by name."""
        return sorted({path.stem for folder in self.recipes for path in _recipes(folder)})

    def recipe(self, name: str) -> Path | None:
        """Returns the file of the recipe with this name, or None."""
        found = (folder / f"{name}.toml" for folder in self.recipes)
        return next((path for path in found if path in _recipes(path.parent)), None)

    def finds(self, path: Path) -> bool:
        """Whether a recipe is the one that its name alone finds."""
        found = self.recipe(path.stem)
        return found is not None and real_path(found) == real_path(path)

    def find(self, model: str) -> Path:
        """Returns the file of the recipe that is called `model`, or that `model` names.

        Raises:
            RecipeError: there is none.
        """
        path = outside_path(expand_user(model), "model")
        if path.is_dir() and model not in self.names():
            raise RecipeError(f"model={model}: a folder, expected a recipe's name or its file",
                              hint="a checkpoint in a folder is source=FOLDER", model=model)
        if model.endswith(".toml"):
            if not path.is_file():
                raise RecipeError(f"model={model}: there is no such file: {path.absolute()}")
            return real_path(path)
        found = self.recipe(model)
        if found is None:
            names = self.names()
            raise RecipeError(
                f"unknown model {shown(model)}{did_you_mean(model, names)}",
                hint=f"the recipes are: {', '.join(names)}; a file of your own is model=FILE.toml",
                model=model,
            )
        return found

    def setting(self, field: Field, words: Mapping[str, str]) -> tuple[Any, Path] | None:
        """Returns a setting's value, and the folder that a path in it is relative to; None if not
        set.

        The command line comes first, then the environment (`SDBUILD_CACHE`), then `sdbuild.toml`.

        Raises:
            RecipeError: the value is not allowed; says where it is set.
        """
        name, variable = field.name, f"SDBUILD_{field.name.upper()}"
        if name in words:
            return parse(field, words[name], "on the command line"), Path.cwd()
        if os.environ.get(variable):
            return parse(field, os.environ[variable], f"in the environment, {variable}"), Path.cwd()
        if name in self.table:
            return parse(field, self.table[name], str(self.root / FILE)), self.root
        return None

    def path(self, field: Field, words: Mapping[str, str]) -> Path | None:
        """Returns a setting that is a path, made absolute; None if not set.

        Raises:
            RecipeError: the value is not allowed, or cannot be looked up.
        """
        found = self.setting(field, words)
        return found and outside_path((found[1] / found[0]).absolute(), field.name)


def _user_cache() -> Path | None:
    """Returns the platform's folder for caches; None for a user without a home, as in
    containers."""
    import platformdirs

    try:
        found = platformdirs.user_cache_path("sdbuild")
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def _recipes(folder: Path) -> list[Path]:
    found: Iterator[Path] = folder.glob("*.toml")
    return [path for path in found if not is_system_file(path.name)]


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    table = toml_table(read_file(path, RecipeError), str(path), RecipeError)
    known = [MODEL_FIELD.name, *(field.name for field in SETTING_FIELDS)]
    for name in table:
        if name not in known:
            raise RecipeError(f"{path}: unknown setting {name!r}{did_you_mean(name, known)}",
                              hint=f"the settings are: {', '.join(known)}; a bundle is described "
                                   "by its recipe")
    return table
