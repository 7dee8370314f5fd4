"""`relink`: another build's component in a finished bundle."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from sdbuild.base.paths import real_path
from sdbuild.cli.options import OutsidePath, as_command, json_option, print_json, recipe_variables


@as_command()
@click.argument("bundle", type=OutsidePath())
@click.argument("component")
@recipe_variables()
@json_option
def command(bundle: Path, component: str, words: dict[str, str], is_json: bool) -> int:
    """Replace one component of a finished bundle.

    COMPONENT, such as unet, is taken from the build that the variables name; all other files of
    BUNDLE stay as they are.
    """
    from sdbuild.cli.format import as_json, made
    from sdbuild.engine.build import Builder
    from sdbuild.engine.relink import relink
    from sdbuild.recipe.settings import settings

    builder = Builder.of(settings(words))
    with redirect_stdout(sys.stderr if is_json else sys.stdout):  # progress of steps and downloads
        record = relink(real_path(bundle), component, builder)
    if is_json:
        print_json(bundle=str(bundle), warnings=list(record.facts["warnings"]),
                   artifact=as_json(record, builder.store))
        return 0
    for line in (*record.facts["warnings"], *record.facts["hosts"]):
        click.echo(line)
    click.echo(f"{bundle}: {record.step}  {made(record)}")
    return 0
