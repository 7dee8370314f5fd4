"""Licences as the Hub names them, and those that do not let converted weights be passed on."""

from __future__ import annotations

from sdbuild.base.errors import RecipeError

_NO_DERIVATIVES = "forbids sharing what is made from it"
_FORBIDDING = {
    "cc-by-nd-4.0": _NO_DERIVATIVES,
    "cc-by-nc-nd-3.0": _NO_DERIVATIVES,
    "cc-by-nc-nd-4.0": _NO_DERIVATIVES,
    "proprietary": "forbids sharing it",
    "all-rights-reserved": "forbids sharing it",
    "unlicensed": "forbids sharing it",
    "unknown": "is not known, and then nothing is allowed",
}
"""Source: the licences' own texts; the names are those of the Hub's list and of old cards."""

_NON_COMMERCIAL = ("cc-by-nc", "non-commercial", "openmdw-nc", "fair-noncommercial")


def check(licence: str | None, is_private: bool) -> list[str]:
    """Returns what is to be said of a licence.

    Raises:
        RecipeError: there is none, or it forbids that the bundle is published.
    """
    if not licence:
        raise RecipeError(
            "the checkpoint's model card names no licence, so nothing says that its weights may be "
            "passed on", hint="licence=NAME says it, as the Hub names it: creativeml-openrail-m, "
            "openrail++, apache-2.0, other")
    why = _FORBIDDING.get(licence.lower())
    if why and not is_private:
        raise RecipeError(f"the licence {licence} {why}, so the bundle is not published",
                          hint="--private keeps it to yourself; licence=NAME says otherwise where "
                               "the card is wrong")
    if why:
        return [f"the licence {licence} {why}: keep the repository private"]
    if any(word in licence.lower() for word in _NON_COMMERCIAL):
        return [f"the licence {licence} allows no commercial use"]
    if licence == "other":
        return ["the licence is one that the Hub does not know: link to it in the card"]
    return []
