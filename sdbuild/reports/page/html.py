"""The report as a page: one file, no script, nothing from elsewhere.

All that comes from outside is escaped by Jinja, and a policy in the page forbids whatever would be
loaded or run nevertheless.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.printable import printable
from sdbuild.base.units import clock, counted, size
from sdbuild.bundle.rules.rule import ERROR
from sdbuild.reports.check import decibels

if TYPE_CHECKING:
    from markupsafe import Markup

    from sdbuild.reports.page.report import Image, Output, Report, Variant

_HERE = Path(__file__).parent
_HEADLINES = {
    "good": "Still good", "changed": "Changed", "bad": "Not good", "not judged": "Not judged",
}
_NARROW = (380, 300)
"""Pixels of the plot on a phone."""


def page(report: Report) -> str:
    """Returns the page of a report."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from sdbuild.reports.page.plot import plot

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"size": size, "clock": clock, "db": decibels, "psnr": _psnr,
                            "breaking": _breaking,
                            "data": lambda name: _data(report.pictures[name])}
    environment.globals |= {"worst": _worst, "rules": _rules, "most": _most, "share": _share}
    return printable(environment.get_template("page.html.jinja").render(
        report=report, headline=_HEADLINES[report.verdict], summary=_summary(report),
        style=Markup((_HERE / "page.css").read_text("utf-8")),
        plots=[Markup(svg) for svg in (plot(report.variants), plot(report.variants, *_NARROW))
               if svg],
    ))


def _data(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def _breaking(name: str) -> Markup:
    """Returns a name that a narrow page breaks behind `_` alone."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>"))


def _psnr(found: Image | Output) -> str:
    """Returns a PSNR in words: `equal` where nothing differs, `NaN` where it is not finite."""
    if not found.is_finite:
        return "NaN"
    return "equal" if found.psnr_db is None else decibels(found.psnr_db)


def _worst(variant: Variant) -> str:
    """Returns the PSNR of a bundle's worst image in words."""
    found = variant.worst_db
    return "equal" if found == math.inf else decibels(found)


def _rules(variant: Variant) -> str:
    """Returns how many rules of hosts a bundle breaks."""
    errors = sum(violation.level == ERROR for violation in variant.violations)
    warnings = len(variant.violations) - errors
    if not variant.hosts:
        return "not checked"
    return f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"


def _most(found: Iterable[Any], name: str) -> float:
    """Returns the greatest of an attribute; None counts as 0."""
    return max((getattr(each, name) or 0 for each in found), default=0)


def _share(value: float | None, most: float) -> float:
    """Returns how many percent one is of another, for bars."""
    return round(100 * max(value or 0, 0) / most, 1) if most > 0 else 0.0


def _summary(report: Report) -> str:
    """Returns the verdict in a sentence or two."""
    judged: dict[str, list[Any]] = {}
    for variant in report.variants:
        judged.setdefault(_judgement(report, variant), []).append(variant.label)
    says = {
        "original": "generate the original's images",
        "same": "generate the reference's images", "changed": "generate changed images",
        "bad": "have problems", "not judged": "were not compared with anything",
        "broken": "generate broken images, which is accepted", "reference": "are the reference",
    }
    one = {
        "original": "generates the original's images",
        "same": "generates the reference's images", "changed": "generates changed images",
        "bad": "has problems", "not judged": "was not compared with anything",
        "broken": "generates broken images, which is accepted", "reference": "is the reference",
    }
    return " ".join(f"{_listed(names)} {(says if len(names) > 1 else one)[word]}."
                    for word, names in judged.items())


def _judgement(report: Report, variant: Variant) -> str:
    """Returns which sentence the summary has for a bundle."""
    if variant.problems:
        return "bad"
    sheet = None if variant.sheet is None else report.sheets[variant.sheet]
    return "original" if variant.verdict == "same" and sheet and sheet.is_original \
        else variant.verdict


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
