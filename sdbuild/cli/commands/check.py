"""`check`: networks and images beside their originals, or beside those of a reference."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.finished import reference
from sdbuild.cli.options import (
    OutsidePath,
    as_command,
    json_option,
    open_store,
    print_json,
    printed_lines,
    recipe_variables,
)
from sdbuild.cli.variants import for_each_variant
from sdbuild.recipe.fields import VARIABLES, VARIANT_FIELD
from sdbuild.recipe.tables import values_of


@as_command()
@for_each_variant
@click.argument("bundle", type=OutsidePath(), required=False)
@click.option("-n", "--jobs", type=click.IntRange(min=1), default=1, metavar="N",
              help="Steps to run at a time.")
@recipe_variables()
@json_option
def command(bundle: Path | None, jobs: int, words: dict[str, str], is_json: bool) -> int:
    """Compare networks and images with the PyTorch original.

    Builds what is needed; fails if a component's PSNR is below the recipe's floor, or images are
    broken. against=REFERENCE compares images with those of a folder, or of another bundle. BUNDLE
    is a finished bundle from any tool to compare with that; the recipe's own if it is left out.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.format import build_as_json
    from sdbuild.cli.reporter import Reporter

    if bundle is not None:
        return _of_finished(bundle, words, is_json)
    if not is_json:
        return run(words, ("check",), jobs, Reporter()).status
    with printed_lines() as lines:
        found = run(words, ("check",), jobs, Reporter(sys.stderr))
    print_json(**build_as_json(found, open_store(words)), report="\n".join(lines))
    return found.status


def _of_finished(place: Path, words: dict[str, str], is_json: bool) -> int:
    """Compares the images of a finished bundle with those of a reference."""
    from sdbuild.base.machine import PATIENT
    from sdbuild.bundle.places import opened
    from sdbuild.recipe import settings
    from sdbuild.recipe.project import Project
    from sdbuild.reports.check import compared
    from sdbuild.reports.reference import generated

    os.environ.update(PATIENT)  # before torch starts its threads
    predictor = settings.predictor(Project.here(), words)
    own = values_of((VARIANT_FIELD, VARIABLES["prediction_type"]), {}, words, "")
    started = time.monotonic()
    with opened(place, own["variant"], own["prediction_type"]) as (bundle, notes):
        for note in notes:
            click.echo(f"{bundle.name}: {note}", err=True)
        found = reference(words, bundle, predictor)
        if found is None:
            raise RecipeError(f"check {place}: nothing to compare it with",
                              hint="against=FOLDER of images, or against=BUNDLE; omit BUNDLE "
                                   "to compare the recipe's own with its original")
        table = compared(found, generated(bundle, found.requests, predictor))
    if is_json:
        print_json(bundle=str(place), ran=[], reused=[], warnings=[], report=table,
                   seconds=round(time.monotonic() - started, 3))
    else:
        click.echo(table)
    return 0
