"""`report`: a page on bundles, with its figures as JSON."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base import zips
from sdbuild.checkpoints.hub.hub import is_hub
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
from sdbuild.recipe import settings
from sdbuild.recipe.fields import VARIABLES, VARIANT_FIELD
from sdbuild.recipe.project import Project
from sdbuild.recipe.tables import values_of

if TYPE_CHECKING:
    from sdbuild.cli.api import BuildResult

_LOSSES = 5


@as_command()
@click.argument("bundles", type=OutsidePath(), nargs=-1, metavar="[BUNDLE]...")
@click.option("--losses", type=click.IntRange(min=0), default=_LOSSES, metavar="N",
              help="List up to N operations of each component that lose precision in fp16.")
@weight_bytes_option
@recipe_variables(with_image=True)
@json_option
def command(
    bundles: tuple[Path, ...], losses: int, weight_bytes: int | None, words: dict[str, str],
    is_json: bool,
) -> int:
    """Write an HTML page on bundles, and its figures as JSON beside it.

    BUNDLE is a finished bundle from any tool: a folder, a zip, or hub:owner/name; the recipe's
    own, which is built and measured if needed, if none is named. report=FILE.html says where the
    page goes.
    """
    from sdbuild.base.machine import PATIENT
    from sdbuild.reports.page.bundles import Options, report_on

    os.environ.update(PATIENT)  # before torch starts its threads
    predictor = settings.predictor(Project.here(), words)
    command = shlex.join(["sdbuild", "report", *map(str, bundles),
                          *(f"{name}={value}" for name, value in words.items())])
    options: dict[str, Any] = {
        "ask": lambda bundle: asked(bundle, words), "losses": losses, "command": command,
        "reference": lambda first: reference(words, first, predictor, weight_bytes),
        "weight_bytes": weight_bytes, "predictor": predictor,
    }
    if bundles:
        own = values_of((VARIANT_FIELD, VARIABLES["prediction_type"]), {}, words, "")
        is_asked = bool(OF_IMAGE & words.keys())
        made = report_on(bundles, Options(**options, store=store_if_any(words), is_asked=is_asked),
                         own["variant"], own["prediction_type"])
        name = page_name(bundles[0]) if len(bundles) == 1 else "report"
    else:
        with redirect_stdout(sys.stderr if is_json else sys.stdout):
            built, more = _measured(words)
        if built.error is not None and is_json:
            raise built.error
        if built.status:
            return built.status
        made = report_on([built.bundle], Options(**options, **more))
        name = built.bundle.name
    path = write_page(made, words, name)
    if is_json:
        print_json(page=str(path), report=made.to_json())
    else:
        click.echo(path)
    return 0


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
        "store": builder.store, "floors": recipe.check.floors, "accepted": recipe.check.reason,
        "requests": tuple(Request(**each) for each in recipe.checked_requests()),
    }


def page_name(place: Path) -> str:
    """Returns a name for the page on the bundle at a place: a zip's without its suffix, a
    repository's without its commit."""
    if is_hub(str(place)):
        return place.name.partition("@")[0]
    return place.stem if place.suffix.lower() == zips.SUFFIX else place.name
