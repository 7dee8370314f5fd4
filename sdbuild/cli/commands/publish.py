"""`publish`: the recipe's bundle in a repository of the Hub, as apps and guides look for it."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables
from sdbuild.cli.variants import for_each_variant


@as_command()
@click.argument("repository")
@click.option("--private", "is_private", is_flag=True,
              help="Make the repository private, if it is not there yet.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show what would be uploaded.")
@for_each_variant
@recipe_variables()
@json_option
def command(
    repository: str, is_private: bool, is_dry: bool, words: dict[str, str], is_json: bool
) -> int:
    """Upload the bundle to a repository of the Hub.

    REPOSITORY is owner/name. The bundle is built if needed; it is laid out as apps look for it,
    with zips, a model card and the recipe that makes it again. Only what changed is uploaded, and
    nothing is deleted that was not published by this command.
    """
    from sdbuild.cli.publishing import publish

    with redirect_stdout(sys.stderr if is_json else sys.stdout):
        found = publish(repository, words, is_private=is_private, is_dry=is_dry, say=click.echo,
                        planned=click.get_current_context().meta)
    if found is None:
        return 1
    if is_json:
        print_json(**found)
    return 0
