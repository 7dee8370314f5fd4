"""The prompts of calibration: a recipe's own, or those that the package has for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import decoded_text, read_file
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.sources import absolute_place

FIRST_SEED = 1_000_000
"""Of calibration: images are judged by others."""

_DEFAULT = BUILT_IN / "prompts" / "calibration.txt"
_MOST_PROMPTS = 1024


def prompts_in(given: str | None, words: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """Returns the prompts of the field `calibrate`.

    Args:
        folder: the recipe's, to which its paths are relative.

    Raises:
        RecipeError: the file cannot be read, or holds no prompts.
    """
    path = Path(absolute_place("calibrate", given, words, folder)) if given else _DEFAULT
    text = decoded_text(read_file(path, RecipeError), str(path), RecipeError)
    found = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not 1 <= len(found) <= _MOST_PROMPTS:
        raise RecipeError(f"{path}: {len(found)} prompts, expected 1 to {_MOST_PROMPTS}",
                          hint="calibrate=FILE is a text file with a prompt on each line")
    return found
