"""Matrices: several bundles in one, by the values that the fields of recipes take in turn.

A table `[matrix]` has a list of values for each of some fields, and stands for every combination:

    [matrix]
    quant = [4, 6, 8]
    attention = ["original", "split_einsum_v2"]
    exclude = [{quant = 4, attention = "original"}]
    include = [{quant = 4, chunk = 2}]

`exclude` takes away each combination that has these values, `include` adds one of its own. What the
command line says of a field stands in place of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.base.suggestions import did_you_mean
from sdbuild.recipe.fields import RECIPE_FIELDS, VARIABLES, Field, parse
from sdbuild.recipe.sources import word_of

Row = Mapping[str, str]
"""Values of some fields, each as a word of the command line."""

FIELDS = {each.name: each for each in RECIPE_FIELDS}
"""Fields that a matrix may vary: those that decide which bundle is built."""

MOST_VARIANTS = 10_000
_LISTS = ("exclude", "include")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The values of each field, the combinations that are left out, and those that are added."""

    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[Row, ...] = ()
    include: tuple[Row, ...] = ()

    @classmethod
    def of(cls, table: Any, folder: Path, where: str) -> Matrix:
        """Returns the matrix in a table; paths in it are relative to `folder`.

        Raises:
            RecipeError: it is not what it may be; says where.
        """
        if not isinstance(table, dict) or not table:
            raise RecipeError(f"{where} is {_shown(table)}, expected lists of values by field",
                              hint="[matrix] and quant = [4, 6] build two bundles")
        axes = {name: _axis(name, values, folder, where)
                for name, values in table.items() if name not in _LISTS}
        exclude, include = (_rows(name, table.get(name, []), folder, where) for name in _LISTS)
        for row in exclude:
            _check_excluded(row, axes, f"{where}: exclude")
        found = cls(axes=axes, exclude=exclude, include=include)
        found.check_size(where)
        return found

    def check_size(self, where: str) -> None:
        """Makes sure that the matrix can be built at all.

        Raises:
            RecipeError: it has too many variants.
        """
        count = prod(map(len, self.axes.values())) + len(self.include)
        if count > MOST_VARIANTS:
            raise RecipeError(f"{where}: {count:,} variants, expected at most {MOST_VARIANTS:,}",
                              hint="give fewer values, or split it into several catalogues")

    def with_axes(self, axes: Mapping[str, tuple[str, ...]]) -> Matrix:
        """Returns the matrix with other values of some fields; what is added must have them."""
        kept = tuple(row for row in self.include
                     if all(_has(axes[name], name, row[name]) for name in axes if name in row))
        return Matrix(axes={**self.axes, **axes}, exclude=self.exclude, include=kept)

    def rows(self) -> list[Row]:
        """Returns all combinations, in the order of the lists, and then those that are added."""
        names = list(self.axes)
        found = (dict(zip(names, values, strict=True)) for values in product(*self.axes.values()))
        kept = [row for row in found if not any(_is_like(row, out) for out in self.exclude)]
        return [*(kept if self.axes or not self.include else ()), *self.include]


def axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Returns the field and the values in a word of the command line, `quant=4,6,8`.

    Raises:
        RecipeError: it is none.
    """
    name, _, values = text.partition("=")
    found = known(name, f"--matrix {shown(text)}")
    return name, _distinct(found, values.split(","), "--matrix")


def known(name: str, where: str) -> Field:
    """Returns the field of a name.

    Raises:
        RecipeError: no matrix can be of it.
    """
    if name in VARIABLES and name not in FIELDS:
        raise RecipeError(f"{where}: {name} is not a field that a matrix can vary",
                          hint=f"a matrix is of: {', '.join(FIELDS)}")
    if name not in FIELDS:
        raise RecipeError(f"{where}: unknown field {shown(name)}{did_you_mean(name, FIELDS)}",
                          hint=f"a matrix is of: {', '.join(FIELDS)}")
    return FIELDS[name]


def _shown(value: Any) -> str:
    return "empty" if value in ([], {}) else shown(value)


def _axis(name: str, values: Any, folder: Path, where: str) -> tuple[str, ...]:
    found = known(name, where)
    if not isinstance(values, list) or not values:
        raise RecipeError(f"{where}: {name} is {_shown(values)}, expected a list of values",
                          hint=f"write one value for all above the table: {name} = …")
    return _distinct(found, [_word(found, value, folder, where) for value in values], where)


def _distinct(found: Field, words: Sequence[str], where: str) -> tuple[str, ...]:
    seen: set[Any] = set()
    for word in words:
        value = _typed(parse(found, word, where))
        if value in seen:
            raise RecipeError(f"{where}: {found.name} has {shown(word)} twice",
                              hint="each value is one variant: leave one of them out")
        seen.add(value)
    return tuple(words)


def _rows(name: str, value: Any, folder: Path, where: str) -> tuple[Row, ...]:
    if not isinstance(value, list) or not all(isinstance(row, dict) and row for row in value):
        raise RecipeError(f"{where}: {name} is {shown(value)}, expected a list of tables, each "
                          "with a field",
                          hint=f"{name} = [{{quant = 4, attention = \"original\"}}]")
    if len(value) > MOST_VARIANTS:
        raise RecipeError(f"{where}: {name} has {len(value):,} tables, expected at most "
                          f"{MOST_VARIANTS:,}")
    return tuple({key: _word(known(key, f"{where}: {name}"), entry, folder, f"{where}: {name}")
                  for key, entry in row.items()} for row in value)


def _word(found: Field, value: Any, folder: Path, where: str) -> str:
    parse(found, value, where)
    return word_of(found, value, folder)


def _check_excluded(row: Row, axes: Mapping[str, Sequence[str]], where: str) -> None:
    """Makes sure that what is left out is there: a mistyped value would leave nothing out.

    Raises:
        RecipeError: it is not.
    """
    for name, value in row.items():
        if name not in axes:
            raise RecipeError(f"{where}: {name} has no list in this matrix",
                              hint=f"it is of: {', '.join(axes) or 'nothing'}")
        if not _has(axes[name], name, value):
            raise RecipeError(f"{where}: {name} has no value {shown(value)}",
                              hint=f"its values are: {', '.join(axes[name])}")


def _has(values: Iterable[str], name: str, value: str) -> bool:
    return any(_is_same(name, each, value) for each in values)


def _is_like(row: Row, wanted: Row) -> bool:
    return all(name in row and _is_same(name, row[name], value) for name, value in wanted.items())


def _is_same(name: str, one: str, other: str) -> bool:
    return one == other or _typed(FIELDS[name].parse(one)) == _typed(FIELDS[name].parse(other))


def _typed(value: Any) -> tuple[type, Any]:
    """Returns a value with its type: 4 equal bits are not 4.0 on average."""
    return type(value), value
