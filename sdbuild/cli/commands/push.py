"""`push`: what was made here before, given to a shared store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sdbuild.base.errors import RecipeError
from sdbuild.cli.commands import add_json, add_variables, print_json, variables

HELP = "give what was made before to a shared store (remote=URL); builds do it by themselves"

SHARED = "shared"
NOT_SHARED = "not shared"
NOT_HERE = "not here"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the task and the variables."""
    parser.add_argument("task", help="build, or a step such as palettize:unet, with all before it")
    add_variables(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints what became of each step; 1 if something could not be given."""
    steps = []
    for step, state in _pushed(options.task, variables(options.words)):
        steps.append({"step": step, "state": state})
        if not options.json:
            print(f"{step:<24}{state}", flush=True)
    if options.json:
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
    builder = Builder(plan(found.recipe), store)
    with store.in_use("push"):
        for name, state in builder.states(steps_of(task, builder)).items():
            if state.record is None or not store.has_content(state.record):
                yield name, NOT_HERE
            else:
                yield name, SHARED if remote.push(state.record) else NOT_SHARED
