"""The contents of a `dodo.py`, and the same tasks run in this process for `sdbuild build`.

    from sdbuild.cli.dodo import DOIT_CONFIG, task_sdbuild
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.dependency import JSONCodec
from doit.doit_cmd import DoitMain

from sdbuild.base.errors import RecipeError
from sdbuild.base.garbage import skip_last_collection
from sdbuild.base.machine import steps_at_a_time
from sdbuild.base.parsing import Malformed, json_object, shown
from sdbuild.cli.reporter import Collector, Reporter
from sdbuild.cli.tasks import load, variables
from sdbuild.recipe.settings import database

skip_last_collection()


class _Codec(JSONCodec):
    """Decodes doit's database, which only stores what `doit ignore` was told.

    A truncated file, which another process is still writing or was killed while writing, counts as
    empty.
    """

    def decode(self, data: str) -> dict[str, Any]:
        """Returns what is known of each task, by its name."""
        try:
            found = json_object(data, "doit's database", Malformed)
        except Malformed:
            return {}
        return {task: known for task, known in found.items() if isinstance(known, dict)}


def _config(reporter: type[Collector] | Collector = Reporter) -> dict[str, Any]:
    return {
        "default_tasks": ["build"],
        "reporter": reporter,
        "backend": "json",
        "codec_cls": _Codec,
        "dep_file": str(database()),
        "verbosity": 1,
        "num_process": steps_at_a_time(),
        "par_type": "thread",  # of `-n`, also where doit reads no pyproject.toml of ours
    }


DOIT_CONFIG = _config()
_COMMANDS = {name: f"sdbuild.cli.doit_commands:{command}" for name, command in (
    ("run", "RunWithin"), ("forget", "ForgetRecords"), ("info", "InfoOfTask"),
    ("help", "HelpVariables"))}


def task_sdbuild() -> Iterator[dict[str, Any]]:
    """Yields the steps of the recipe, and build, check and generate above them."""
    yield from load(variables())


def run(arguments: Sequence[str], words: Mapping[str, str]) -> int:
    """Runs doit in this process, as on its own command line, and gives its exit status.

    Args:
        words: the variables, which doit itself would read from its arguments.
    """
    return execute(arguments, lambda: load(words), Reporter)


def execute(
    arguments: Sequence[str], tasks: Callable[[], Iterator[dict[str, Any]]],
    reporter: type[Collector] | Collector,
) -> int:
    """Runs doit in this process; its exit status: 0 done, 1 or 2 failed, 3 no such task."""
    for word in arguments:
        _check_task(word)

    def task_sdbuild() -> Iterator[dict[str, Any]]:
        yield from tasks()

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
