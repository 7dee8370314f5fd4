"""Settings of the images of a finished bundle, as options of commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import StoreError
from sdbuild.bundle.hosts import HOSTS
from sdbuild.cli.options import open_store
from sdbuild.recipe.fields import AGAINST_FIELD, DRAW_FIELDS, INPUT_FIELDS
from sdbuild.recipe.tables import values_of

if TYPE_CHECKING:
    from sdbuild.bundle.manifest import Bundle
    from sdbuild.bundle.request import Request
    from sdbuild.reports.reference import Reference
    from sdbuild.store import Store

OF_IMAGE = frozenset(field.name for field in (*DRAW_FIELDS, *INPUT_FIELDS))


def asked(bundle: Bundle, words: Mapping[str, str]) -> tuple[Request, ...]:
    """Returns what variables ask of a finished bundle, image by image, with the settings that it
    has itself where none are given.

    Raises:
        RecipeError: a value that is not allowed.
    """
    from sdbuild.cli.api import Bundle as Opened

    request = Opened(bundle).request({n: v for n, v in words.items() if n in OF_IMAGE})
    return HOSTS[request.host].singles(request)


def reference(
    words: Mapping[str, str], first: Bundle, predictor: str, weight_bytes: int | None = None
) -> Reference | None:
    """Returns what `against=` names; None if it is not given.

    Args:
        first: the bundle that is compared, whose own settings hold where images say nothing.

    Raises:
        BundleError, SDBuildError: there are no images, and no bundle.
    """
    from sdbuild.reports.reference import read_reference

    place = values_of((AGAINST_FIELD,), {}, words, "")[AGAINST_FIELD.name]
    if place is None:
        return None
    return read_reference(Path(place), asked(first, words), predictor, weight_bytes)


def store_if_any(words: dict[str, str]) -> Store | None:
    """Returns the store, if there is one."""
    try:
        return open_store(words)
    except StoreError:
        return None
