"""`pull`: one variant of a repository that `publish` wrote."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from sdbuild.cli.options import as_command, json_option, print_json, variables
from sdbuild.recipe.fields import VARIABLES, VARIANT_FIELD


@as_command()
@click.argument("place", metavar="hub:OWNER/NAME")
@variables("Bundle", VARIANT_FIELD, VARIABLES["bundle"])
@json_option
def command(place: str, words: dict[str, str], is_json: bool) -> int:
    """Fetch one variant that was published, and verify it.

    Every file is compared with the SHA-256 in the model card; hub:owner/name@COMMIT is of a commit.
    """
    from sdbuild.cli.publishing import pull

    with redirect_stdout(sys.stderr if is_json else sys.stdout):
        found = pull(place, words, click.echo)
    if is_json:
        print_json(bundle=str(found))
    return 0
