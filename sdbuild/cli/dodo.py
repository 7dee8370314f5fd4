"""What a `dodo.py` needs, and the same tasks run in this process for `sdbuild build`.

    from sdbuild.cli.dodo import DOIT_CONFIG, task_sdbuild
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.cli.reporter import Reporter
from sdbuild.cli.tasks import load, variables
from sdbuild.recipe.settings import database, settings


class Before(Reporter):
    """The reporter of a build that a command starts with."""

    is_last = False


def _config(reporter: type[Reporter] = Reporter) -> dict[str, Any]:
    return {
        "default_tasks": ["build"],
        "reporter": reporter,
        "backend": "json",
        "dep_file": str(database()),
        "verbosity": 1,
        "par_type": "thread",  # of `-n`, also where doit reads no pyproject.toml of ours
    }


DOIT_CONFIG = _config()
_COMMANDS = {"run": "sdbuild.cli.tasks:RunWithin", "forget": "sdbuild.cli.tasks:ForgetRecords",
             "info": "sdbuild.cli.tasks:InfoOfTask",
             "help": "sdbuild.cli.doit_help:HelpVariables"}


def task_sdbuild() -> Iterator[dict[str, Any]]:
    """The steps of the recipe, and build, check and generate above them."""
    yield from load(variables())


def run(
    arguments: Sequence[str], words: Mapping[str, str], reporter: type[Reporter] = Reporter
) -> int:
    """Runs doit in this process; its exit status: 0 done, 1 or 2 failed, 3 no such task.

    Args:
        words: the variables, which doit itself would read from its arguments.
    """
    for word in arguments:
        _check_task(word)

    def task_sdbuild() -> Iterator[dict[str, Any]]:
        yield from load(words)

    program = DoitMain(
        ModuleTaskLoader({"DOIT_CONFIG": _config(reporter), "task_sdbuild": task_sdbuild}),
        config_filenames=(), extra_config={"COMMAND": _COMMANDS},
    )
    program.BIN_NAME = "sdbuild"
    return program.run(list(arguments))


def _check_task(word: str) -> None:
    """Refuses what cannot be the name of a task, which doit would ignore or report late.

    Raises:
        RecipeError: it is empty, has a `=`, which doit takes for a variable of its own, or is a
            path.
    """
    if not word:
        raise RecipeError("an empty argument, expected a task", hint="sdbuild list lists the tasks")
    if not word.startswith("-") and ("=" in word or ("/" in word and ":" not in word)):
        raise RecipeError(f"{shown(word)}: expected a task, or name=value",
                          hint='a value that has spaces is quoted: source="my models/a"')


def build_bundle(words: Mapping[str, str], *, is_quiet: bool = False) -> tuple[Path, int]:
    """Builds the recipe's bundle; its folder, and doit's exit status.

    Args:
        is_quiet: progress goes to standard error.
    """
    with redirect_stdout(sys.stderr if is_quiet else sys.stdout):
        return settings(words).bundle, run(["run", "build"], words, Before)
