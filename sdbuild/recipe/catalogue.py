"""Variants: the bundles that a command line with `--matrix` asks for.

They are those of the matrix of one recipe, or of a catalogue, a file that names several recipes:

    [matrix]                     # of each recipe that has none here
    quant = [4, 6, 8]

    [[recipe]]
    model = "sd-1-5"

    [[recipe]]
    model = "sd-2-1-base"
    chunk = 2
    matrix = {quant = [6]}
"""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError, SDBuildError, SourceError
from sdbuild.base.parsing import shown
from sdbuild.base.paths import outside_path
from sdbuild.recipe.fields import DRAW_FIELDS, MODEL_FIELD, RECIPE_FIELDS, check_variables, parse
from sdbuild.recipe.matrix import FIELDS, MOST_VARIANTS, Matrix, axis
from sdbuild.recipe.project import Project
from sdbuild.recipe.recipe import Recipe, load, matrix_of
from sdbuild.recipe.sources import word_of
from sdbuild.recipe.tables import check_keys, read

FILE = "catalogue.toml"
"""The catalogue of a project, beside its `sdbuild.toml` or `recipes/`."""

ENTRY_FIELDS = (MODEL_FIELD, *RECIPE_FIELDS, *DRAW_FIELDS)
"""Fields that an entry of a catalogue may set, besides its matrix."""

_MODEL = MODEL_FIELD.name
_OF_BUNDLES = [each.name for each in ENTRY_FIELDS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One bundle: its name, the variables that a command line asks for it with, and its recipe.

    With an `error` there is no recipe, and it is called by its variables.
    """

    name: str
    words: Mapping[str, str]
    recipe: Recipe | None = None
    error: SDBuildError | None = None

    @property
    def row(self) -> dict[str, str]:
        """Returns the variables that decide what it is, without those of places and machines."""
        return {name: self.words[name] for name in _OF_BUNDLES if name in self.words}

    @property
    def shell_words(self) -> str:
        """Returns these variables as a shell reads them."""
        return shell_words(self.row)


def shell_words(words: Mapping[str, str]) -> str:
    """Returns variables as a shell, or xargs, reads them."""
    return shlex.join(f"{name}={value}" for name, value in words.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A recipe of a catalogue: its variables, and its matrix; None if that is the recipe's own.

    One that a command line names alone must have a matrix, here or there.
    """

    words: Mapping[str, str]
    matrix: Matrix | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The values of `--matrix` on a command line: lists by field, models, and a catalogue."""

    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    catalogue: str = ""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Asked:
        """Returns what texts ask for: `quant=4,6`, `model=a,b`, a catalogue, or nothing.

        Raises:
            RecipeError: one is none of these, or two contradict each other.
        """
        axes: dict[str, tuple[str, ...]] = {}
        catalogues = []
        for text in filter(None, texts):
            name, is_axis, values = text.partition("=")
            if not is_axis:
                catalogues.append(text)
                continue
            if name in axes:
                raise RecipeError(f"--matrix {name}: given twice",
                                  hint=f"give all values at once: --matrix {name}=A,B")
            axes[name] = tuple(values.split(",")) if name == _MODEL else axis(text)[1]
        if len(catalogues) > 1 or not all(text.endswith(".toml") for text in catalogues):
            raise RecipeError(f"--matrix {' '.join(map(shown, catalogues))}: expected "
                              "NAME=VALUE,…, or one catalogue",
                              hint="--matrix quant=4,6,8, or --matrix catalogue.toml")
        models = axes.pop(_MODEL, ())
        return cls(axes=axes, models=models, catalogue="".join(catalogues))


def variants(
    words: Mapping[str, str], asked: Asked, only: Sequence[str] = (),
    project: Project | None = None, facts: MutableMapping[str, Any] | None = None,
) -> list[Variant]:
    """Returns the bundles that a command line asks for.

    Args:
        words: its variables, which hold for all: a field that is among them has no other value.
        only: names or patterns, of which each variant must have one.
        facts: a cache of facts about repositories of the Hub, added to.

    Raises:
        RecipeError: a value that is not allowed, two variants of one name, or none at all.
    """
    check_variables(words)
    for name in sorted(asked.axes.keys() & words.keys()):
        raise RecipeError(f"--matrix {name}: {name}={shown(words[name])} is given too",
                          hint="omit one of them")
    project = project or Project.here()
    facts = {} if facts is None else facts
    found: dict[str, Variant] = {}
    for entry in _entries(words, asked, project):
        for row in _rows(entry, words, asked, project, facts):
            variant = _variant({**row, **words}, project, facts)
            other = found.setdefault(variant.name, variant)
            if other is not variant:
                raise _of_one_name(variant, other)
            if len(found) > MOST_VARIANTS:
                raise RecipeError(f"--matrix: more than {MOST_VARIANTS:,} variants",
                                  hint="split the catalogue into several")
    return _only(list(found.values()), only)


def _entries(words: Mapping[str, str], asked: Asked, project: Project) -> Iterator[_Entry]:
    """Yields the recipes that are meant, each with its own variables."""
    is_named = any(name in words for name in (_MODEL, "source")) or asked.models
    own = project.root / FILE
    if not asked.catalogue and (is_named or not own.is_file()):
        yield from [_Entry(words={_MODEL: model}) for model in asked.models] \
            or [_Entry(words={}, is_alone=not asked.axes)]
        return
    path = outside_path(asked.catalogue, "--matrix") if asked.catalogue else own
    models = {words[_MODEL]} if _MODEL in words else set(asked.models)
    entries = catalogue(path)
    chosen = [entry for entry in entries if not models or entry.words.get(_MODEL) in models]
    if not chosen:
        known = dict.fromkeys(entry.words.get(_MODEL, "") for entry in entries)
        raise RecipeError(f"{path}: no recipe of model={', '.join(sorted(models))}",
                          hint=f"its models are: {', '.join(filter(None, known))}")
    yield from chosen


def catalogue(path: Path) -> list[_Entry]:
    """Returns the recipes of a catalogue.

    Raises:
        RecipeError: the file is no catalogue; says where.
    """
    table = read(path)
    check_keys(table, {"summary", "matrix", "recipe"}, str(path))
    entries = table.get("recipe")
    if not isinstance(entries, list) or not entries \
            or not all(isinstance(each, dict) for each in entries):
        raise RecipeError(f"{path}: recipe is {shown(entries)}, expected tables [[recipe]]",
                          hint='[[recipe]] and model = "sd-1-5" name a recipe')
    shared = Matrix.of(table["matrix"], path.parent, f"{path}: [matrix]") \
        if "matrix" in table else None
    return [_entry(each, path, f"{path}: recipe {number}", shared)
            for number, each in enumerate(entries, 1)]


def _entry(table: Mapping[str, Any], path: Path, where: str, shared: Matrix | None) -> _Entry:
    check_keys(table, {"matrix", *(field.name for field in ENTRY_FIELDS)}, where)
    if _MODEL not in table and "source" not in table:
        raise RecipeError(f"{where}: no {_MODEL}", hint=f"it is {MODEL_FIELD.meaning}")
    found = {}
    for each in ENTRY_FIELDS:
        if each.name in table:
            value = table[each.name]
            parse(each, value, where)
            is_name = each is MODEL_FIELD and not str(value).endswith(".toml")
            found[each.name] = value if is_name else word_of(each, value, path.parent)
    matrix = shared
    if "matrix" in table:
        matrix = Matrix.of(table["matrix"], path.parent, f"{where}: matrix")
    return _Entry(words=found, matrix=matrix)


def _rows(
    entry: _Entry, words: Mapping[str, str], asked: Asked, project: Project,
    facts: MutableMapping[str, Any],
) -> list[Mapping[str, str]]:
    """Returns the combinations of one recipe, with its own variables."""
    matrix = entry.matrix
    if matrix is None:
        try:
            matrix = matrix_of({**entry.words, **words}, project, facts)
        except SourceError:  # which this variant alone fails by
            matrix = Matrix()
    if entry.is_alone and matrix == Matrix():
        raise RecipeError("--matrix: the recipe has no [matrix], and no values are given",
                          hint="--matrix quant=4,6,8, or a table [matrix] in the recipe")
    matrix = matrix.with_axes({**_single(entry.words), **asked.axes, **_single(words)})
    matrix.check_size("--matrix")
    return [{**entry.words, **row} for row in matrix.rows()]


def _single(words: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns variables as lists of one value."""
    for name in words:
        if name in FIELDS:
            parse(FIELDS[name], words[name], "on the command line")
    return {name: (value,) for name, value in words.items() if name in FIELDS}


def _variant(
    words: Mapping[str, str], project: Project, facts: MutableMapping[str, Any]
) -> Variant:
    said = Variant(name="", words=words).shell_words
    try:
        recipe = load(words, project, facts)
        return Variant(name=recipe.variant, words=words, recipe=recipe)
    except SourceError as error:  # of this one alone, for which the others do not wait
        return Variant(name=said, words=words, error=error)
    except RecipeError as error:
        raise RecipeError(f"--matrix: {said}: {error.message}",
                          hint=error.hint or "exclude leaves combinations out") from error


def _of_one_name(one: Variant, other: Variant) -> RecipeError:
    return RecipeError(
        f"--matrix: two variants are called {one.name}: {other.shell_words} and {one.shell_words}",
        hint="they would be put into one folder: omit one of them",
    )


def _only(found: list[Variant], only: Sequence[str]) -> list[Variant]:
    chosen = [variant for variant in found
              if not only or any(fnmatch.fnmatchcase(variant.name, each) for each in only)]
    if not chosen:
        what = f"--only {' '.join(map(shown, only))}: no such variant" if found \
            else "--matrix: every variant is excluded"
        raise RecipeError(what, hint="sdbuild matrix lists them")
    return chosen
