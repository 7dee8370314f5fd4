"""A recipe as the text of its file, with everything that a command line asked for written in.

The text builds the same bytes wherever it is: places are absolute, or, for others to
read, they are names without the folders of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints import is_hub
from sdbuild.recipe.fields import RECIPE_FIELDS
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.sources import absolute_place
from sdbuild.recipe.tables import read
from sdbuild.recipe.values import named_path

_TABLES = ("draw", "check", "floors")
_PATHS = tuple(field.name for field in RECIPE_FIELDS if field.parse is named_path)


def text_of(recipe: Recipe, words: Mapping[str, str], *, is_public: bool = False) -> str:
    """Returns the text of the recipe that words made.

    Args:
        is_public: leave out in which folders of this machine files lie.

    Raises:
        RecipeError: its file cannot be read any more.
    """
    table = {} if recipe.file is None else read(recipe.file)
    lines = [f"family = {_value(recipe.family.name)}"]
    if recipe.summary:
        lines.insert(0, f"summary = {_value(recipe.summary)}")
    shown = _public if is_public else _built_in
    given: dict[str, Any] = {f.name: words.get(f.name, table.get(f.name)) for f in RECIPE_FIELDS}
    folder = Path.cwd() if recipe.file is None else recipe.file.parent
    paths = {name: shown(absolute_place(name, given[name], words, folder))
             for name in _PATHS if given[name]}
    given["size"] = given["size"] or f"{recipe.network.width_px}x{recipe.network.height_px}"
    given["components"] = _components(recipe)
    for name, value in (given | paths | _places(recipe, shown)).items():
        if value is not None and value != []:
            is_number = isinstance(value, str) and value.isascii() and value.isdigit()
            lines.append(f"{name} = {_value(int(value) if is_number else value)}")
    for name in _TABLES:
        lines += _table(name, table[name]) if table.get(name) else []
    return "\n".join(lines) + "\n"


def _components(recipe: Recipe) -> list[str]:
    """Returns the components, without those that ControlNets bring with them."""
    return [c.name for c in recipe.components if not c.instance and not (
        c.comes_with == "controlnet" and recipe.sources.controlnets)]


def _places(recipe: Recipe, shown: Callable[[str], str]) -> dict[str, Any]:
    """Returns the fields that hold places, which no folder matters for any more."""
    sources = recipe.sources
    return {
        "source": [*map(shown, sources.checkpoint.places)],
        "config": shown(sources.checkpoint.config) if sources.checkpoint.config else None,
        "lora": [f"{shown(lora.place)}:{lora.strength:g}" for lora in sources.loras],
        "embedding": [shown(e.place) + (e.word and f":{e.word}") for e in sources.embeddings],
        "controlnet": [shown(place) for net in sources.controlnets.values()
                       for place in net.places],
        **{name: [*map(shown, source.places)] for name, source in sources.elsewhere.items()},
    }


def _built_in(place: str) -> str:
    """Returns a place; one that comes with sdbuild is called as it is everywhere."""
    start = f"{BUILT_IN}/"
    return f"builtin:{place.removeprefix(start)}" if place.startswith(start) else place


def _public(place: str) -> str:
    """Returns a place without the folders of this machine."""
    found = _built_in(place)
    return found if is_hub(found) or found != place else found.rstrip("/").rpartition("/")[2]


def _table(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a table, tables in it after its own values."""
    inner = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    if len(inner) < len(content):
        yield ""
        yield f"[{name}]"
    for key, value in content.items():
        if key not in inner:
            yield f"{key} = {_value(value)}"
    for key, value in inner.items():
        yield from _table(f"{name}.{key}", value)


def _value(value: Any) -> str:
    """Returns a value as TOML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
