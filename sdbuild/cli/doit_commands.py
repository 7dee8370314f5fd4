"""The commands of doit that do something else than doit's own, by the name that they have there.

They are plugins of doit: `pyproject.toml` of this repository and `doit.cfg` of a project name them.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from doit.cmd_base import subtasks_iter, tasks_and_deps_iter
from doit.cmd_forget import Forget
from doit.cmd_help import Help
from doit.cmd_info import Info
from doit.cmd_run import Run
from doit.exceptions import InvalidCommand
from doit.task import Task

from sdbuild.base.errors import (
    BundleError,
    ContractBroken,
    OutOfMemory,
    RecipeError,
    SDBuildError,
    SourceError,
)
from sdbuild.base.printable import printed_safely
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.install import check_writable
from sdbuild.cli.format import made
from sdbuild.cli.log import logged
from sdbuild.cli.reporter import Collector, Reporter, is_step
from sdbuild.engine.build import Builder
from sdbuild.recipe.fields import VARIABLES

LOG = logging.getLogger(__name__)


class RunWithin(Run):
    """`doit run`, which refuses before anything starts what cannot be read, held in memory or put
    where it is wanted, and a bundle that no host could use.

    `doit -n` runs tasks in threads: steps are processes of their own, and tasks cannot be handed
    to processes that are spawned, as on a Mac (`docs/decisions/0028-macs.md`).
    """

    name = "run"

    @functools.wraps(Run._execute)  # doit looks at the signature
    def _execute(self, **options: Any) -> int:
        if not isinstance(options["outfile"], str):
            options["outfile"] = sys.stdout  # as it is now; doit has it from its import
        if options["reporter"] is Reporter and not isinstance(options["outfile"], str):
            options["reporter"] = Reporter(options["outfile"])
        reporter = options["reporter"]
        by_name = {task.name: task for task in self.task_list}
        chosen = [name for name in self.sel_tasks or by_name if name in by_name]
        with printed_safely(), nullcontext() if type(reporter) is Collector else logged():
            try:
                wanted = list(tasks_and_deps_iter(by_name, chosen))
                for task in wanted:
                    if task.meta and not is_step(task):
                        check_writable(task.meta["bundle"])
                _expect_ready([task.meta for task in wanted if is_step(task)])
                return super()._execute(**options | {"par_type": "thread"})
            except (RecipeError, SourceError, OutOfMemory, BundleError) as error:
                found, status = error, 2 if isinstance(error, RecipeError) else 1
            except InvalidCommand as error:
                if not error.not_found:
                    raise
                found, status = _no_task(str(error.not_found), by_name), 3
            if isinstance(reporter, Collector):
                reporter.refuse(found)
            else:
                sys.stderr.write(f"ERROR: {found}\n")
            return status


def _expect_ready(steps: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that the steps can be read, held in memory and used, before anything starts.

    Raises:
        RecipeError, SourceError, OutOfMemory, ContractBroken: some cannot.
    """
    if not steps:
        return
    builder, names = steps[0]["builder"], [step["step"] for step in steps]
    try:
        builder.plan.expect(names)
        builder.store.sweep_work()
        if builder.remote is not None:
            builder.remote.check()
        builder.reach_sources(names)
        builder.refuse_too_large(names)
        _tell_notes(builder, names)
    except (RecipeError, SourceError, OutOfMemory, ContractBroken):
        raise
    except SDBuildError:
        pass  # running the step will say what is wrong, where doit can report it


def _no_task(word: str, tasks: Iterable[str]) -> RecipeError:
    """Returns the error for a word that is no task: the right place for it, or the nearest task."""
    from sdbuild.cli.main import names
    from sdbuild.recipe.project import Project

    if word in Project.here().names():
        return RecipeError(f"{word} is a recipe, expected a task", hint=f"add model={word}")
    if word in names():
        return RecipeError(f"{word} is a command of sdbuild", hint=f"sdbuild {word}")
    return RecipeError(f"there is no task {word!r}{did_you_mean(word, [*tasks, *names()])}",
                       hint="the tasks are listed by list, steps too by list --all")


def _tell_notes(builder: Builder, names: list[str]) -> None:
    """Prints what is worth knowing of the recipe before anything runs, and before its models are
    compiled."""
    states = builder.states(names).values()
    if builder.plan.recipe.found and any(state.record is None for state in states):
        LOG.info("   recipe: %s", builder.plan.recipe.found)
    if any(state.record is None and state.step.kind == "compile" for state in states):
        for note in builder.plan.recipe.packaging.notes:
            LOG.info("   note: %s", note)


class InfoOfTask(Info):
    """`doit info`: what a task does and needs, and of a step what is known of its artifact."""

    name = "info"

    @functools.wraps(Info._execute)  # doit looks at the signature
    def _execute(self, pos_args: Sequence[str], **options: Any) -> int:
        by_name = {task.name: task for task in self.task_list}
        if len(pos_args) != 1:
            raise InvalidCommand("info: expected one task\n\nhint: doit list --all lists them")
        if pos_args[0] not in by_name:
            raise InvalidCommand(str(_no_task(pos_args[0], by_name)))
        lines, is_made = _described(by_name[pos_args[0]])
        print("\n".join(lines))
        return 0 if is_made else 1


def _described(task: Task) -> tuple[list[str], bool]:
    """A task in lines, and whether it is a step that would not run."""
    lines = [f"{task.name}  {task.doc or ''}"]
    lines += [f"  needs   {', '.join(task.task_dep)}"] if task.task_dep else []
    if not is_step(task):
        return lines, False
    builder, name = task.meta["builder"], task.meta["step"]
    try:
        state = builder.state(name)
    except SDBuildError as error:
        return [*lines, f"  state   {error.message}"], False
    if state.record is None:
        waits = f", after {', '.join(state.waits_for)}" if state.waits_for else ""
        return [*lines, f"  state   would run{waits}: sdbuild why {name}"], False
    record = state.record
    lines += ["  state   up to date", f"  made    {record.made_at} on {record.host}",
              f"  cost    {made(record).strip()}"]
    return lines + [f"  params  {key} = {value}" for key, value in sorted(
        state.step.params.items())], True


class ForgetRecords(Forget):
    """`doit forget`: drops the records of steps, so that they run again."""

    name = "forget"
    doc_purpose = "drop the records of steps, so that they run again"

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> None:
        by_name = {task.name: task for task in self.task_list}
        chosen = [by_name[n] for n in (by_name if forget_all else self.sel_tasks) if n in by_name]
        tasks = [each for task in chosen for each in (task, *subtasks_iter(by_name, task))]
        found = [(t.meta["builder"], t.meta["step"]) for t in tasks if is_step(t)]
        # All keys before any record goes: a step's key is unknown without those before it.
        try:
            keys = [(builder.store, builder.state(step).key) for builder, step in found]
            for store, key in keys:
                if key:
                    store.forget(key)
        except SDBuildError as error:
            raise InvalidCommand(str(error)) from error
        super()._execute(forget_sub, forget_disable_default, forget_all)


class HelpVariables(Help):
    """`doit help`, which lists the variables behind the help of a task."""

    name = "help"

    def _execute(self, pos_args: Sequence[str]) -> bool:
        if not super()._execute(pos_args):
            return False
        print(f"\nVariables, as in: doit {pos_args[0]} quant=6")
        for field in VARIABLES.values():
            print(f"  {field.name:<16} {'|'.join(field.choices) or field.unit}\n"
                  f"                   {field.meaning}")
        print(f"\nsdbuild why {pos_args[0]} explains what would run; sdbuild --help lists more.")
        return True
