"""The page of a report, written with its figures beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import RecipeError, SDBuildError
from sdbuild.cli.options import SCHEMA
from sdbuild.recipe.fields import VARIABLES
from sdbuild.recipe.project import Project

if TYPE_CHECKING:
    from sdbuild.reports.page.report import Report


def write_page(report: Report, words: Mapping[str, str], name: str) -> Path:
    """Writes the page and its figures where `report=` says, else by name, and returns the page's
    path.

    Raises:
        RecipeError: it is not the name of a page.
        SDBuildError: a file cannot be written.
    """
    path = Project.here().path(VARIABLES["report"], words) or Path("reports", f"{name}.html")
    if path.suffix not in (".html", ".htm"):
        raise RecipeError(f"report={path}: expected the name of a page, FILE.html",
                          hint="its figures go beside it, to FILE.json")
    figures = json.dumps({"schema": SCHEMA, **report.to_json()}, indent=2)
    for file, text in ((path, report.to_html()), (path.with_suffix(".json"), figures + "\n")):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        except OSError as error:
            raise SDBuildError(f"{file}: cannot be written: {error.strerror}") from error
    return path
