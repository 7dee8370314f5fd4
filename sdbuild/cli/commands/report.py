"""`report`: a page on bundles, with its figures as JSON."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base import zips
from sdbuild.base.errors import RecipeError, StepError
from sdbuild.checkpoints.hub.hub import is_hub
from sdbuild.cli.building import build
from sdbuild.cli.finished import OF_IMAGE, asked, reference, store_if_any
from sdbuild.cli.options import (
    OutsidePath,
    as_command,
    json_option,
    print_json,
    recipe_variables,
    weight_bytes_option,
)
from sdbuild.cli.page import write_page
from sdbuild.cli.variants import (
    Outcome,
    apart,
    expect_possible,
    found_variants,
    matrix_option,
    only_option,
    run_each,
    summary,
)
from sdbuild.recipe import settings
from sdbuild.recipe.fields import VARIABLES, VARIANT_FIELD
from sdbuild.recipe.project import Project
from sdbuild.recipe.tables import values_of

if TYPE_CHECKING:
    from sdbuild.cli.api import BuildResult
    from sdbuild.reports.page.report import Report

_LOSSES = 5


@as_command()
@click.argument("bundles", type=OutsidePath(), nargs=-1, metavar="[BUNDLE]...")
@click.option("--losses", type=click.IntRange(min=0), default=_LOSSES, metavar="N",
              help="List up to N operations of each component that lose precision in fp16.")
@weight_bytes_option
@only_option
@matrix_option
@recipe_variables(with_image=True)
@json_option
def command(
    bundles: tuple[Path, ...], losses: int, weight_bytes: int | None,
    matrix: tuple[str, ...], only: tuple[str, ...], words: dict[str, str], is_json: bool,
) -> int:
    """Write an HTML page on bundles, and its figures as JSON beside it.

    BUNDLE is a finished bundle from any tool: a folder, a zip, or hub:owner/name; the recipe's
    own, which is built and measured if needed, if none is named; with --matrix those of all its
    variants, on one page. report=FILE.html says where the page goes.
    """
    from sdbuild.base.machine import PATIENT

    os.environ.update(PATIENT)  # before torch starts its threads
    predictor = settings.predictor(Project.here(), words)
    command = shlex.join([
        "sdbuild", "report", *map(str, bundles), *(f"--matrix={each}" for each in matrix),
        *(f"--only={each}" for each in only),
        *(f"{name}={value}" for name, value in words.items())])
    options: dict[str, Any] = {
        "ask": lambda bundle: asked(bundle, words), "losses": losses, "command": command,
        "reference": lambda first: reference(words, first, predictor, weight_bytes),
        "weight_bytes": weight_bytes, "predictor": predictor,
    }
    outcomes: Sequence[Outcome] = ()
    if bundles and (matrix or only):
        raise RecipeError("report: bundles and a matrix", hint="omit the bundles, or --matrix")
    if bundles:
        made, name = _of_finished(bundles, words, options)
    elif matrix or only:
        outcomes = _measured_variants(words, matrix, only, is_json=is_json)
        made, name = _of_variants(outcomes, options), "matrix"
    else:
        with redirect_stdout(sys.stderr if is_json else sys.stdout):
            built, more = _measured(words)
        if built.error is not None and is_json:
            raise built.error
        if built.status:
            return built.status
        made, name = _report_on([built.bundle], options | more), built.bundle.name
    path = write_page(made, words, name)
    if is_json:
        print_json(page=str(path), report=made.to_json(),
                   variants=[outcome.as_json() for outcome in outcomes])
    else:
        click.echo(path)
    return 1 if any(outcome.status for outcome in outcomes) else 0


def _report_on(places: Sequence[Path], options: dict[str, Any], *assumed: str | None) -> Report:
    from sdbuild.reports.page.bundles import Options, report_on

    return report_on(places, Options(**options), *assumed)


def _of_finished(
    bundles: Sequence[Path], words: dict[str, str], options: dict[str, Any]
) -> tuple[Report, str]:
    """Returns the report on finished bundles, and its name."""
    own = values_of((VARIANT_FIELD, VARIABLES["prediction_type"]), {}, words, "")
    more = {"store": store_if_any(words), "is_asked": bool(OF_IMAGE & words.keys())}
    made = _report_on(bundles, options | more, own["variant"], own["prediction_type"])
    return made, page_name(bundles[0]) if len(bundles) == 1 else "report"


def _measured(words: dict[str, str]) -> tuple[BuildResult, dict[str, Any]]:
    """Builds the recipe's bundle and measures it; returns the build, and what the recipe says of
    the measurements."""
    from sdbuild.bundle.request import Request
    from sdbuild.cli.api import run
    from sdbuild.cli.reporter import Before
    from sdbuild.cli.tasks import measurements, prepared

    builder, found = prepared(words)
    names, drawn = measurements(builder)
    built = run(words, ("build", *names, *drawn), 1, Before())
    recipe = found.recipe
    return built, {
        "store": builder.store, "checks": {built.bundle: recipe.check},
        "requests": tuple(Request(**each) for each in recipe.checked_requests()),
    }


def page_name(place: Path) -> str:
    """Returns a name for the page on the bundle at a place: a zip's without its suffix, a
    repository's without its commit."""
    if is_hub(str(place)):
        return place.name.partition("@")[0]
    return place.stem if place.suffix.lower() == zips.SUFFIX else place.name


def _measured_variants(
    words: dict[str, str], matrix: Sequence[str], only: Sequence[str], *, is_json: bool
) -> list[Outcome]:
    """Builds and measures each variant of a matrix."""
    from sdbuild.cli.tasks import measurements, prepared

    def measured(words: dict[str, str], is_json: bool) -> int:
        names, drawn = measurements(prepared(words)[0])
        return build(words, ("build", *names, *drawn), 1, is_json=is_json)

    variants = found_variants(words, matrix, only)
    expect_possible(variants, ("report",))
    outcomes = run_each(variants, measured, {}, {}, is_json=is_json)
    lines = "\n".join(summary(outcomes))
    if all(outcome.status for outcome in outcomes):
        raise StepError(f"report: no bundle could be built\n\n{lines}")
    if not is_json:
        click.echo(lines, err=any(outcome.status for outcome in outcomes))
    return outcomes


def _of_variants(outcomes: Sequence[Outcome], options: dict[str, Any]) -> Report:
    """Returns the report on the variants that were built."""
    from sdbuild.store import Store

    found = [settings.settings(apart(outcome.variant)) for outcome in outcomes
             if not outcome.status]
    return _report_on([each.bundle for each in found], options | {
        "store": Store(found[0].cache),
        "checks": {each.bundle: each.recipe.check for each in found}})
