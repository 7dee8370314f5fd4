"""`check`: networks and images beside their originals, or beside those of a reference."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import BundleError
from sdbuild.cli.finished import OF_IMAGE, asked, reference, store_if_any
from sdbuild.cli.options import (
    OutsidePath,
    as_command,
    jobs_option,
    json_option,
    open_store,
    print_json,
    printed_lines,
    recipe_variables,
)
from sdbuild.cli.variants import for_each_variant
from sdbuild.recipe.fields import VARIABLES, VARIANT_FIELD
from sdbuild.recipe.tables import values_of

if TYPE_CHECKING:
    from sdbuild.bundle.manifest import Bundle
    from sdbuild.reports.check import Judgement


@as_command()
@for_each_variant
@click.argument("bundle", type=OutsidePath(), required=False)
@jobs_option
@recipe_variables()
@json_option
def command(bundle: Path | None, jobs: int | None, words: dict[str, str], is_json: bool) -> int:
    """Compare networks and images with the PyTorch original.

    Builds what is needed; fails if a component's PSNR is below the recipe's floor, or images are
    broken. against=REFERENCE compares images with those of a folder, or of another bundle.

    BUNDLE is a finished bundle from any tool: a folder, a zip, or hub:owner/name. Its files are
    verified, the contract with hosts is checked, and its images are compared with those of
    against=, else with its original's if this store has them; else each is judged by itself.
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
    """Checks a finished bundle: its files, the contract, and its images."""
    from sdbuild.base.machine import PATIENT
    from sdbuild.bundle.places import bundle_in, located
    from sdbuild.reports.check_bundle import check_bundle

    os.environ.update(PATIENT)  # before torch starts its threads
    own = values_of((VARIANT_FIELD, VARIABLES["prediction_type"]), {}, words, "")
    started = time.monotonic()
    with located(place, own["variant"]) as (folder, notes):
        def judge() -> Judgement:
            bundle, more = bundle_in(folder, own["prediction_type"])
            for note in (*notes, *more):
                click.echo(f"{bundle.name}: {note}", err=True)
            return _judged(bundle, words)

        found = check_bundle(folder, judge)
    if is_json:
        print_json(bundle=str(place), ran=[], reused=[], warnings=[*map(str, found.warnings)],
                   report=found.report, seconds=round(time.monotonic() - started, 3))
    else:
        click.echo(found.report)
    return 0


def _judged(bundle: Bundle, words: dict[str, str]) -> Judgement:
    """Returns the judgement on the images of a bundle: beside those of `against=`, else beside its
    original's if the store has them, else by themselves."""
    from sdbuild.recipe import settings
    from sdbuild.recipe.project import Project
    from sdbuild.reports.alone import judged_alone, with_blank
    from sdbuild.reports.check import Judgement, compared
    from sdbuild.reports.check_bundle import recorded
    from sdbuild.reports.reference import generated

    predictor = settings.predictor(Project.here(), words)
    if found := reference(words, bundle, predictor):
        made = generated(bundle, found.requests, predictor)
        return compared(found.name, found.compared(made))
    store = None if OF_IMAGE & words.keys() else store_if_any(words)
    if judged := store and recorded(bundle.folder, store):
        return judged
    requests = asked(bundle, words)
    try:
        made = generated(bundle, with_blank(requests), predictor)
    except BundleError as error:  # a component is missing, as in bundles for one's own apps
        return Judgement(table=f"quality: not judged: {error.message}")
    return judged_alone(requests, made)
