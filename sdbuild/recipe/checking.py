"""The part of a recipe that says what `doit check` asks of a bundle: pictures, and floors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.families import Family, Floor
from sdbuild.recipe.components import known_components
from sdbuild.recipe.fields import CHECK_FIELDS, FLOOR_FIELD, parse
from sdbuild.recipe.tables import check_keys, table_in, values_of
from sdbuild.recipe.values import FLOORS


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The pictures by which a bundle is judged, prompt i with seed i; and the reason why palettes
    may break them, empty if they may not.

    `floors` are of each component: its family's, where the recipe gives it none.
    """

    prompts: tuple[str, ...]
    reason: str
    floors: Mapping[str, Floor]

    @classmethod
    def of(cls, table: Mapping[str, Any], family: Family, path: Path) -> Check:
        """Returns the tables `[check]` and `[floors]` of the recipe in a file.

        Raises:
            RecipeError: one of them is not what it may be; says where.
        """
        where = f"{path}: [check]"
        checked = table_in(table, "check", path)
        check_keys(checked, {field.name for field in CHECK_FIELDS}, where)
        fields = values_of(CHECK_FIELDS, checked, {}, where)
        if bool(fields["accepts"]) != bool(fields["reason"]):
            raise RecipeError(f"{where}: no {'reason' if fields['accepts'] else 'accepts'}, "
                              "expected accepts with a reason, or neither",
                              hint='accepts = "broken" and reason = "why" accept broken images')
        return cls(prompts=fields["prompts"], reason=fields["reason"],
                   floors=_floors(table_in(table, "floors", path), family, path))


def _floors(table: Mapping[str, Any], family: Family, path: Path) -> dict[str, Floor]:
    floors = {component.name: component.floor for component in family.components}
    for name, entry in table.items():
        where = f"{path}: [floors.{name}]"
        known_components((name,), family)
        if not isinstance(entry, dict) or not entry.get("reason"):
            raise RecipeError(f"{where}: a floor has a reason, and a number for each quant")
        check_keys(entry, {"reason", *FLOORS}, where)
        floors[name] = Floor(
            by_quant={k: parse(FLOOR_FIELD, v, f"{where}.{k}") for k, v in entry.items()
                      if k != "reason"},
            reason=str(entry["reason"]),
        )
    return floors
