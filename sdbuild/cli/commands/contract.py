"""`contract`: checks a bundle, of any maker, against what hosts expect."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sdbuild.cli.options import OutsidePath, as_command, json_option, print_json, recipe_variables
from sdbuild.cli.variants import for_each_variant


@as_command()
@for_each_variant
@click.argument("bundle", type=OutsidePath(), required=False)
@recipe_variables()
@json_option
def command(bundle: Path | None, words: dict[str, str], is_json: bool) -> int:
    """Check that hosts can load a bundle, and list those that do.

    BUNDLE is a finished bundle from any tool: a folder, a zip, or hub:owner/name; the recipe's
    own, which is built if needed, if it is left out. Packages are checked as they are once
    compiled. The exit status is 1 if a rule is broken with an error.
    """
    from sdbuild.bundle.places import as_compiled, located

    if bundle is None:
        from sdbuild.cli.api import run
        from sdbuild.cli.reporter import Before, Collector

        built = run(words, ("build",), 1, Collector() if is_json else Before())
        if built.error is not None and is_json:
            raise built.error
        if built.status:
            return built.status
        return _checked(built.bundle, is_json)
    with (located(bundle, words.get("variant")) as (place, notes),
          as_compiled(place) as (folder, more)):
        for note in (*notes, *more):
            click.echo(note, err=True)
        return _checked(folder, is_json)


def _checked(folder: Path, is_json: bool) -> int:
    """Prints what is wrong with a bundle and who runs it; returns the exit status."""
    from sdbuild.bundle.bundle_reader import open_bundle
    from sdbuild.bundle.compatibility import table, verdicts
    from sdbuild.bundle.contract import RULES, format_violations, violations
    from sdbuild.bundle.rules.rule import ERROR

    found = violations(folder)
    hosts = verdicts(open_bundle(folder))
    errors = sum(violation.level == ERROR for violation in found)
    if is_json:
        print_json(rules=len(RULES), violations=[asdict(violation) for violation in found],
                   hosts=[asdict(verdict) for verdict in hosts])
    else:
        counts = f"{len(RULES)} rules: {errors} errors, {len(found) - errors} warnings"
        click.echo("\n".join([*([format_violations(found)] if found else []), counts, "",
                              table(hosts)]))
    return 1 if errors else 0
