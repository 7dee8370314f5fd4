"""Progress of a build on the terminal, as doit runs its tasks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from doit.cmd_base import tasks_and_deps_iter
from doit.reporter import ConsoleReporter
from doit.task import Task

from sdbuild.base.errors import SDBuildError
from sdbuild.base.printable import Printable
from sdbuild.base.units import clock, counted
from sdbuild.cli.display import Display
from sdbuild.cli.format import finished, made, note_lines
from sdbuild.engine.build import Builder
from sdbuild.store import Record


def is_step(task: Task) -> bool:
    """Whether a task makes a step of the plan: `meta` names it and its builder."""
    return bool(task.meta) and "step" in task.meta


class Reporter(ConsoleReporter):
    """Tells of each step what it cost; of what is up to date only how much there was."""

    desc = "sdbuild's own: what ran and what it cost"

    is_last = True
    """Whether the build is all that was asked for, so that what comes next is suggested."""

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(Printable(outstream), options)
        self.up_to_date: dict[str, Record | None] = {}
        self.builder: Builder | None = None
        self.has_run = False
        self.display = Display()
        self._started = time.monotonic()
        self._ran: set[str] = set()
        self._build: Task | None = None

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Sequence[str]) -> None:
        """Counts the steps, and has the display show those that run."""
        wanted = list(tasks_and_deps_iter(tasks, selected_tasks))
        steps = [task.meta for task in wanted if is_step(task)]
        self._build = next((t for t in wanted if t.name == "build" in selected_tasks), None)
        self.display.total = len(steps)
        if steps:
            self.builder = steps[0]["builder"]
            self.builder.watches = self.display.watching

    def write(self, text: str) -> None:
        """Writes above the lines of the steps that run."""
        with self.display.hidden():
            self.outstream.write(text)
            self.outstream.flush()

    def execute_task(self, task: Task) -> None:
        """Says that a task starts, where the display does not."""
        if not self.has_run:
            self.has_run = True
            self.up_to_date = self._records(list(self.up_to_date))
        is_counted = self._counts(task)
        if task.actions and not (is_counted and self.display.is_live):
            self.write(f".  {task.title()}\n")

    def add_success(self, task: Task) -> None:
        """Says what a step cost."""
        if is_step(task) and task.executed:
            record = task.meta["builder"].state(task.meta["step"]).record
            if record is not None:
                self._ran.add(record.step)
                lines = [f"{record.step:<22}{made(record)}",
                         *(f"{'':<24}{note}" for note in note_lines(record))]
                self.write("".join(f"   {line}\n" for line in lines))

    def skip_uptodate(self, task: Task) -> None:
        """Counts, and names only what was asked for."""
        if self._counts(task):
            name = task.meta["step"]
            self.up_to_date |= self._records([name]) if self.has_run else {name: None}
        elif task.actions:
            self.write(f"-- {task.title()}\n")

    def complete_run(self) -> None:
        """Says how many steps ran and how many needed nothing, and what doit itself has to say."""
        count = len(self.up_to_date)
        if self.has_run:  # what seemed up to date was run again where its content was lost
            now = self._records(list(self.up_to_date))
            count = sum(now[name] == record for name, record in self.up_to_date.items())
        words = [f"{counted(len(self._ran), 'step')} ran in {clock(self._seconds())}"] \
            if self._ran else []
        words += [f"{counted(count, 'step')} up to date"] if count else []
        if words:
            self.write(f"   {', '.join(words)}\n")
        if self._build is not None and self.has_run and not self.failures and self.builder:
            for line in finished(self._build.meta["bundle"], self.builder, self.is_last):
                self.write(f"   {line}\n")
        for message in self.runtime_errors:
            self.write(f"{message}\n")

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _counts(self, task: Task) -> bool:
        """Gives a step its number; whether the task is one."""
        if is_step(task):
            self.display.numbers[task.meta["step"]] = len(self.display.numbers) + 1
        return is_step(task)

    def _records(self, names: list[str]) -> dict[str, Record | None]:
        with contextlib.suppress(SDBuildError):
            if self.builder is not None:
                states = self.builder.states(names)
                return {name: states[name].record for name in names}
        return dict.fromkeys(names)

    def _write_failure(self, result: dict[str, Any], write_exception: bool = True) -> None:
        self.write(f"ERROR in {result['task'].name}:\n{result['exception'].get_msg()}\n")
