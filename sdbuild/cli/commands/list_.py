"""`list`: the tasks of doit."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables


@as_command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@recipe_variables()
@json_option
def command(arguments: tuple[str, ...], words: dict[str, str], is_json: bool) -> int:
    """List the tasks; with --all also the single steps."""
    from sdbuild.cli import tasks
    from sdbuild.cli.dodo import run

    if not is_json:
        return run(["list", *arguments], words)
    found = [task for task in tasks.tasks(*tasks.prepared(words))
             if task.get("name", "") is not None]
    print_json(tasks=[{
        "name": ":".join(filter(None, (task["basename"], task.get("name")))),
        "summary": task["doc"], "needs": task.get("task_dep", []),
    } for task in found])
    return 0
