"""`--on`: the steps of variants made by the workers of a cluster, before the command itself runs.

The command finds them made then, in this machine's store or in the shared one, and does the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import SDBuildError, ToolMissing
from sdbuild.cli.display import above
from sdbuild.cli.log import logged

if TYPE_CHECKING:
    from sdbuild.recipe.catalogue import Variant

on_option = click.option(
    "--on", metavar="dask|ADDRESS", help="Make the steps on a cluster of Dask: on this machine, or "
    "at tls://HOST:PORT (docs/catalogues.md).")


def made_elsewhere(
    address: str, variants: Sequence[Variant], words: Mapping[str, str], tasks: Sequence[str],
    jobs: int,
) -> dict[str, SDBuildError]:
    """Makes what tasks need on a cluster; the error of each variant that failed, by its name.

    Raises:
        RecipeError: the address cannot be used, no shared store is named.
        ToolMissing: Dask is not installed, or a worker has other tools.
        StepError: nothing answers.
    """
    try:
        from sdbuild.cluster.address import jobs_here
        from sdbuild.cluster.build import Wanted, build_on
    except ModuleNotFoundError as error:
        raise ToolMissing(f"--on {address}: the package {error.name} is not installed",
                          hint="pip install 'sdbuild[dask]'") from None
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import Plan, plan
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.why import steps_of

    plans = {each.name: plan(each.recipe) for each in variants if each.recipe is not None}
    if not plans:
        return {}
    found = settings(next(each.words for each in variants if each.name in plans))
    builders = Builder.of_plans(plans, found)

    def steps(each: Plan) -> list[str]:
        return list(dict.fromkeys(step for task in tasks for step in steps_of(task, each)))

    costs = next(iter(builders.values())).costs  # those of all share what is known of checkpoints
    with logged():
        return build_on(address, Wanted(
            builders=builders, steps=steps, architectures=costs.architecture, remote=found.remote,
            jobs=jobs if jobs > 1 else jobs_here()), _say)


def _say(line: str) -> None:
    with above():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
