"""`sweep`: bundles of several bits, and the smallest that generates the original's images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import RecipeError, StepError
from sdbuild.cli.building import build
from sdbuild.cli.options import (
    OF_IMAGES,
    as_command,
    jobs_option,
    json_option,
    print_json,
    recipe_variables,
    variables,
)
from sdbuild.cli.page import write_page
from sdbuild.cli.variants import apart, found_variants, own_words, run_each, summary
from sdbuild.recipe.sweep import BITS_FIELD, VARIED, points

if TYPE_CHECKING:
    from sdbuild.recipe.catalogue import Variant
    from sdbuild.reports.page.bundles import Named
    from sdbuild.reports.page.report import Report

_PICTURES = "pictures"


@as_command()
@jobs_option
@recipe_variables(without={*VARIED, *OF_IMAGES})
@variables("Sweep", BITS_FIELD)
@json_option
def command(jobs: int | None, words: dict[str, str], is_json: bool) -> int:
    """Build bundles of several bits, and find the smallest that is as good as the original.

    Each N of bits=N,… makes a bundle with N equal bits, if Core ML has palettes of N, and one with
    N bits on average, each weight with bits of its own. All generate the images that the recipe is
    checked by; report=FILE.html shows them, and size against quality. Fails if no bundle generates
    the original's images, or one cannot be built.
    """
    from sdbuild.base.machine import PATIENT
    from sdbuild.reports.curve import conclusion, table

    os.environ.update(PATIENT)  # before torch starts its threads
    bits = words.pop(BITS_FIELD.name, BITS_FIELD.default)
    asked = _asked(words, bits)
    outcomes = run_each([variant for variant, _ in asked], lambda words, is_json: build(
        words, ("build", _PICTURES), jobs, is_json=is_json), {}, {}, is_json=is_json)
    built = [each for each, outcome in zip(asked, outcomes, strict=True) if not outcome.status]
    if not built:
        raise StepError("sweep: no bundle could be built\n\n" + "\n".join(summary(outcomes)))
    made = _report(built, _command("sweep", {"bits": bits, **words}))
    page = write_page(made, words, f"{made.title}-sweep")
    if is_json:
        print_json(variants=[outcome.as_json() for outcome in outcomes], page=str(page),
                   report=made.to_json(), smallest=made.smallest.label if made.smallest else "")
    else:
        click.echo("\n".join(summary(outcomes)), err=len(built) < len(asked))
        click.echo(f"\n{table(made)}\n\n{page}\n{conclusion(made)}")
    return 0 if made.smallest and len(built) == len(asked) else 1


def _asked(words: Mapping[str, str], bits: str) -> list[tuple[Variant, Named]]:
    """Returns the variants to build, with what each is called.

    Raises:
        RecipeError: a value that is not allowed, or a bundle that generates no images.
    """
    from sdbuild.engine.plan import plan
    from sdbuild.reports.page.bundles import Named

    (base,) = found_variants(words, (), ())
    if base.recipe is None or _PICTURES not in plan(base.recipe).steps:
        raise RecipeError("sweep: the bundle generates no images to compare",
                          hint="its components need a text encoder, a U-Net and a VAE decoder")
    found = []
    for point in points(base.recipe, bits):
        (variant,) = found_variants({**words, **point.words}, (), ())
        command = _command("build", own_words(variant))
        found.append((variant, Named(series=point.series, label=point.label, command=command)))
    return found


def _report(built: Sequence[tuple[Variant, Named]], command: str) -> Report:
    """Returns the report on bundles that were built, with the images that they were checked by."""
    from sdbuild.bundle.request import Request
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.page.bundles import Options, report_on
    from sdbuild.store import Store

    found = [settings(apart(variant)) for variant, _ in built]
    recipe = found[0].recipe
    requests = tuple(Request(**each) for each in recipe.checked_requests())
    named = {each.bundle: name for each, (_, name) in zip(found, built, strict=True)}
    return report_on(list(named), Options(
        ask=lambda bundle: requests, requests=requests, store=Store(found[0].cache), named=named,
        checks=dict.fromkeys(named, recipe.check), command=command, losses=0,
        predictor=found[0].predictor))


def _command(name: str, words: Mapping[str, str]) -> str:
    return shlex.join(["sdbuild", name, *(f"{word}={value}" for word, value in words.items())])
