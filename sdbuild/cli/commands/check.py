"""`check`: the parity of each component with its PyTorch original."""

from __future__ import annotations

import sys

import click

from sdbuild.cli.options import (
    as_command,
    json_option,
    open_store,
    print_json,
    printed_lines,
    recipe_variables,
)
from sdbuild.cli.variants import for_each_variant


@as_command()
@for_each_variant
@click.option("-n", "--jobs", type=click.IntRange(min=1), default=1, metavar="N",
              help="Steps to run at a time.")
@recipe_variables()
@json_option
def command(jobs: int, words: dict[str, str], is_json: bool) -> int:
    """Compare each component with its PyTorch original.

    Builds what is needed; fails if a component's PSNR is below the recipe's floor.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.format import build_as_json
    from sdbuild.cli.reporter import Reporter

    if not is_json:
        return run(words, ("check",), jobs, Reporter()).status
    with printed_lines() as lines:
        found = run(words, ("check",), jobs, Reporter(sys.stderr))
    print_json(**build_as_json(found, open_store(words)), report="\n".join(lines))
    return found.status
