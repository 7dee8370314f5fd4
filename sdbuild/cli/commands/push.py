"""`push`: uploads artifacts that were made before to a shared store."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.options import as_command, json_option, print_json, recipe_variables

SHARED = "shared"
NOT_SHARED = "not shared"
NOT_HERE = "not here"


@as_command()
@click.argument("task", default="build", metavar="[STEP]")
@recipe_variables()
@json_option
def command(task: str, words: dict[str, str], is_json: bool) -> int:
    """Upload artifacts to a shared store (--remote URL).

    STEP is build or a step such as palettize:unet, with all before it. Builds with --remote upload
    what they make by themselves. The exit status is 1 if an upload failed.
    """
    steps = []
    for step, state in _pushed(task, words):
        steps.append({"step": step, "state": state})
        if not is_json:
            click.echo(f"{step:<24}{state}")
    if is_json:
        print_json(steps=steps)
    return 1 if any(step["state"] == NOT_SHARED for step in steps) else 0


def _pushed(task: str, words: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Pushes each step that the task needs and that is here; what became of it."""
    from sdbuild.engine.build import Builder
    from sdbuild.engine.plan import plan
    from sdbuild.recipe.settings import settings
    from sdbuild.reports.why import steps_of
    from sdbuild.store import Store
    from sdbuild.store.remote.remote import remote_at

    found = settings(words)
    store = Store(found.cache)
    remote = remote_at(found.remote, store)
    if remote is None:
        raise RecipeError("push: no shared store is named", hint="add remote=URL")
    remote.check()
    builder = Builder(plan(found.recipe), store)
    with store.in_use("push"):
        for name, state in builder.states(steps_of(task, builder.plan)).items():
            if state.record is None or not store.has_content(state.record):
                yield name, NOT_HERE
            else:
                yield name, SHARED if remote.push(state.record) else NOT_SHARED
