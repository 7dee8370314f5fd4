"""Licences as the Hub names them, and those that do not let converted weights be passed on."""

from __future__ import annotations

from sdbuild.base.errors import RecipeError
from sdbuild.base.suggestions import did_you_mean

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

_NAMES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m
    bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
    lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
    mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense
    zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3
    llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other
"""
KNOWN = frozenset(_NAMES.split())
"""The names that the Hub takes. It refuses a card with another one.

Source:
    The Hub's answer to such a card, in huggingface_hub's issue 4218 of May 2026.
"""

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
    if licence.lower() not in KNOWN:
        near = did_you_mean(licence.lower(), KNOWN) or "; licence=other stands for any"
        return [f"warning: the Hub takes no licence of the name {licence}, unless it is new there, "
                f"and refuses the model card{near}"]
    if any(word in licence.lower() for word in _NON_COMMERCIAL):
        return [f"the licence {licence} allows no commercial use"]
    if licence == "other":
        return ["the licence is one that the Hub does not know: link to it in the card"]
    return []
