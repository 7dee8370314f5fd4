"""The components of a family by the names that a recipe gives."""

from __future__ import annotations

from collections.abc import Collection

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.families import Component, Family


def known_components(wanted: Collection[str], family: Family) -> tuple[Component, ...]:
    """The family's components of these names, in the family's order.

    Raises:
        RecipeError: it has no component of a name.
    """
    known = [component.name for component in family.components]
    for name in wanted:
        if name not in known:
            raise RecipeError(
                f"unknown component {name!r}{did_you_mean(name, known)}",
                hint=f"the components of {family.title} are: {', '.join(known)}",
            )
    return tuple(component for component in family.components if component.name in wanted)
