"""`doctor`: what this machine can build and run."""

from __future__ import annotations

from dataclasses import asdict

import click

from sdbuild.cli.options import as_command, json_option, print_json, store_variables


@as_command()
@store_variables
@json_option
def command(words: dict[str, str], is_json: bool) -> int:
    """Check what this machine can build and run.

    The exit status is 1 if it cannot build.
    """
    from sdbuild.cli.doctor import can_build, examine, format_findings
    from sdbuild.recipe.settings import store_folder

    found = examine(store_folder(words))
    if is_json:
        print_json(findings=[asdict(finding) for finding in found])
    else:
        click.echo(format_findings(found))
    return 0 if can_build(found) else 1
