"""The commands of `python -m sdbuild`, one file each, found by its name (`_` is written `-`).

A command's module imports nothing heavy before it runs, and holds

HELP          what it does, in a line
add(parser)   adds its arguments
run(options)  does it; the exit status: 0 done, 1 something is wrong. One with commands of its
              own below it (`mil`) has none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sdbuild.base.errors import RecipeError, StoreError

if TYPE_CHECKING:
    from sdbuild.store import Store

SCHEMA = 1
"""The version of what commands print as JSON (`docs/json.md`)."""


def modules() -> Iterator[tuple[str, ModuleType]]:
    """Every command: its name and module."""
    for found in pkgutil.iter_modules(__path__):
        yield found.name.replace("_", "-"), importlib.import_module(f"{__name__}.{found.name}")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="JSON instead of text (docs/json.md)")


def print_json(**content: object) -> None:
    """Prints what a command found as one JSON object, with its schema."""
    print(json.dumps({"schema": SCHEMA, **content}, indent=2))


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Adds `--cache`."""
    parser.add_argument("--cache", type=Path, metavar="FOLDER",
                        help="the store (default: cache/ of the project)")


def opened(options: argparse.Namespace) -> Store:
    """The store that `--cache` names.

    Raises:
        StoreError: there is none.
    """
    from sdbuild.recipe.settings import PROJECT
    from sdbuild.store import Store

    root = options.cache or PROJECT / "cache"
    if not (root / "records").is_dir():
        what = "nothing was made there yet" if root.is_dir() else "there is no such folder"
        raise StoreError(f"{root}: {what}, expected a store",
                         hint="name it with --cache FOLDER; doit build makes it")
    return Store(root)


def add_variables(parser: argparse.ArgumentParser) -> None:
    """Adds the `name=value` words that doit takes too."""
    parser.add_argument("words", nargs="*", default=[], metavar="name=value", help="as for doit")


def variables(words: Sequence[str], model: str = "") -> dict[str, str]:
    """The variables in `name=value` words, and `model` if the command names a recipe itself.

    Raises:
        RecipeError: one has no `=`, or is another recipe.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r}: expected name=value")
        found[name] = value
    if model and found.setdefault("model", model) != model:
        raise RecipeError(f"model={found['model']}: the recipe is named already: {model}",
                          hint="leave one of them away")
    return found
