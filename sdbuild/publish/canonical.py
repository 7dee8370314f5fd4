"""The build that is published: from a recipe's text alone, so that anybody can make it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sdbuild.recipe.fields import SETTING_FIELDS
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import settings
from sdbuild.recipe.text import text_of

_SETTINGS = {field.name for field in SETTING_FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """A recipe as its text for others to read, and the words that build it."""

    name: str
    text: str
    words: Mapping[str, str]


@contextmanager
def canonical(words: Mapping[str, str]) -> Iterator[tuple[Canonical, Recipe]]:
    """The recipe that words ask for, as a file of its own; and as it was before."""
    recipe = settings(words).recipe
    with built_from(recipe.name, text_of(recipe, words), words) as found:
        yield replace(found, text=text_of(recipe, words, is_public=True)), recipe


@contextmanager
def built_from(name: str, text: str, words: Mapping[str, str]) -> Iterator[Canonical]:
    """A recipe's text, as a file that is gone afterwards, with the settings among words."""
    with TemporaryDirectory(prefix="sdbuild-") as made:
        path = Path(made, f"{name}.toml")
        path.write_text(text, "utf-8")
        yield Canonical(name=name, text=text, words={
            "model": str(path), **{n: value for n, value in words.items() if n in _SETTINGS}})
