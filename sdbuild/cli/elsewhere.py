"""`--on`: the steps of variants made by the workers of a cluster, before the command itself runs.

The command finds them made then, in this machine's store or in the shared one, and does the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base.errors import SDBuildError, ToolMissing
from sdbuild.cli.display import above
from sdbuild.cli.log import logged

if TYPE_CHECKING:
    from sdbuild.cluster.estimate import Estimate
    from sdbuild.engine.build import Builder
    from sdbuild.engine.graph import Architectures
    from sdbuild.engine.plan import Plan
    from sdbuild.recipe.catalogue import Variant
    from sdbuild.recipe.settings import Settings
    from sdbuild.reports.why import Total

on_option = click.option(
    "--on", metavar="dask|ADDRESS", help="Make the steps on a cluster of Dask: on this machine, or "
    "at tls://HOST:PORT (docs/catalogues.md).")


estimate_option = click.option(
    "--on", metavar="dask|ADDRESS", help="Estimate what a Dask cluster would run and "
    "upload, without connecting to it.")


def made_elsewhere(
    address: str, variants: Sequence[Variant], words: Mapping[str, str], tasks: Sequence[str],
    jobs: int | None,
) -> dict[str, SDBuildError]:
    """Makes what tasks need on a cluster; the error of each variant that failed, by its name.

    Raises:
        RecipeError: the address cannot be used, no shared store is named.
        ToolMissing: Dask is not installed, or a worker has other tools.
        StepError: nothing answers.
    """
    with _dask(address):
        from sdbuild.cluster.address import jobs_here
        from sdbuild.cluster.build import Wanted, build_on
    builders, found, architectures = _planned(variants)
    if not builders:
        return {}
    with logged():
        return build_on(address, Wanted(
            builders=builders, steps=lambda each: _steps(tasks, each), architectures=architectures,
            remote=found.remote, jobs=jobs or jobs_here()), _say)


def estimated(address: str, variants: Sequence[Variant], tasks: Sequence[str]) -> Estimate:
    """Returns what tasks of variants would take on a cluster, which is not asked.

    Raises:
        RecipeError: the address cannot be used, or no variant can be built.
        ToolMissing: Dask is not installed.
    """
    with _dask(address):
        from sdbuild.cluster.address import check_address
    from sdbuild.cluster.estimate import estimate
    from sdbuild.store.remote.rate import guessed

    check_address(address)
    builders, found, architectures = _planned(variants)
    return estimate(builders, lambda each: _steps(tasks, each), architectures,
                    guessed(found.remote).bytes_s)


def total_of(
    variants: Sequence[Variant], tasks: Sequence[str], reasons: Mapping[str, Any]
) -> Total | None:
    """Returns what tasks of variants would take together; None if nothing is known of any.

    Args:
        reasons: those of each variant, by its name.
    """
    from sdbuild.engine.graph import graph
    from sdbuild.reports.why import total

    known = [each for each in variants if each.name in reasons]
    if not known:
        return None
    builders, _, architectures = _planned(known)
    return total(graph({name: each.plan for name, each in builders.items()},
                       lambda each: _steps(tasks, each), architectures),
                 {each.name: reasons[each.name] for each in known})


@contextmanager
def _dask(address: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ToolMissing(f"--on {address}: the package {error.name} is not installed",
                          hint="pip install 'sdbuild[dask]'") from None


def _planned(
    variants: Sequence[Variant],
) -> tuple[dict[str, Builder], Settings, Architectures]:
    """Returns a builder for each variant that has a recipe, the settings of all, and what tells
    the architectures of their checkpoints."""
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import plan
    from sdbuild.recipe.settings import settings

    plans = {each.name: plan(each.recipe) for each in variants if each.recipe is not None}
    found = settings(next(each.words for each in variants if each.name in plans or not plans))
    builders = Builder.of_plans(plans, found)
    costs = next((each.costs for each in builders.values()), None)  # all share what is known
    return builders, found, costs.architecture if costs else lambda step: None


def _steps(tasks: Sequence[str], of: Plan) -> list[str]:
    from sdbuild.reports.why import steps_of

    return list(dict.fromkeys(step for task in tasks for step in steps_of(task, of)))


def _say(line: str) -> None:
    with above():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
