"""Reporters of doit's tasks: results collected for programs, and printed for people."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from doit.cmd_base import tasks_and_deps_iter
from doit.exceptions import BaseFail
from doit.reporter import ConsoleReporter
from doit.task import Task

from sdbuild.base.errors import SDBuildError, StepError
from sdbuild.base.printable import Printable
from sdbuild.base.units import clock, counted
from sdbuild.cli.display import Display
from sdbuild.cli.format import finished, made, note_lines
from sdbuild.engine.build import Builder
from sdbuild.store import Record


def is_step(task: Task) -> bool:
    """Whether a task makes a step of the plan: `meta` names it and its builder."""
    return bool(task.meta) and "step" in task.meta


class Collector(ConsoleReporter):
    """Collects what ran, what was reused and what failed; prints nothing.

    `ran` are the records of the steps that ran, by name, and `error` the first failure.
    """

    desc = "sdbuild's own for programs: nothing is printed"

    def __init__(self, outstream: Any = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(outstream, options or {})
        self.ran: dict[str, Record] = {}
        self.error: SDBuildError | None = None
        self.builder: Builder | None = None
        self.has_run = False
        self._seen: dict[str, Record | None] = {}
        self._lock = threading.RLock()  # the threads of `-n` tell of what they start
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Returns how long ago this began."""
        return time.monotonic() - self._started

    def reused(self) -> dict[str, Record]:
        """Returns the records of the steps that were up to date, by name, and still are."""
        return self.reused_and_repeated()[0]

    def reused_and_repeated(self) -> tuple[dict[str, Record], dict[str, Record]]:
        """Returns the records of the steps that were up to date and still are, by name, and of
        those that ran again because their content was missing."""
        reused: dict[str, Record] = {}
        repeated: dict[str, Record] = {}
        for name, record in self._records(list(self._seen)).items():
            if record is not None and (not self.has_run or self._seen[name] == record):
                reused[name] = record
            elif record is not None and self._seen[name] is not None:
                repeated[name] = record
        return reused, repeated

    def write(self, text: str) -> None:
        """Prints nothing."""

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Sequence[str]) -> None:
        """Finds the builder."""
        wanted = [t for t in tasks_and_deps_iter(tasks, selected_tasks) if is_step(t)]
        if wanted:
            self.builder = wanted[0].meta["builder"]

    def execute_task(self, task: Task) -> None:
        """Notes what was up to date before anything ran."""
        with self._lock:
            if not self.has_run:
                self.has_run = True
                self._seen = self._records(list(self._seen))

    def add_success(self, task: Task) -> None:
        """Notes a step that ran."""
        if is_step(task) and task.executed:
            record = task.meta["builder"].state(task.meta["step"]).record
            if record is not None:
                self.ran[record.step] = record

    def skip_uptodate(self, task: Task) -> None:
        """Notes a step that is up to date."""
        if is_step(task):
            name = task.meta["step"]
            with self._lock:
                self._seen |= self._records([name]) if self.has_run else {name: None}

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Notes the first failure."""
        found = getattr(fail, "error", None) or StepError(f"{task.name}: {fail.get_msg()}")
        self.error = self.error or found
        super().add_failure(task, fail)

    def refuse(self, error: SDBuildError) -> None:
        """Notes why nothing was started."""
        self.error = error

    def complete_run(self) -> None:
        """Prints nothing."""

    def _records(self, names: list[str]) -> dict[str, Record | None]:
        with contextlib.suppress(SDBuildError):
            if self.builder is not None:
                states = self.builder.states(names)
                return {name: states[name].record for name in names}
        return dict.fromkeys(names)


class Reporter(Collector):
    """Tells of each step what it cost; of what is up to date only how much there was."""

    desc = "sdbuild's own: what ran and what it cost"

    is_last = True
    """True if nothing runs after the build, so that the next command is suggested."""

    def __init__(
        self, outstream: Any = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(Printable(sys.stdout if outstream is None else outstream), options)
        self.display = Display()
        self._build: Task | None = None

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Sequence[str]) -> None:
        """Counts the steps, and has the display show those that run."""
        super().initialize(tasks, selected_tasks)
        wanted = list(tasks_and_deps_iter(tasks, selected_tasks))
        self._build = next((t for t in wanted if t.name == "build" in selected_tasks), None)
        self.display.total = sum(map(is_step, wanted))
        if self.builder is not None:
            self.builder.watches = self.display.watching

    def write(self, text: str) -> None:
        """Writes above the lines of the steps that run."""
        with self.display.hidden():
            self.outstream.write(text)
            self.outstream.flush()

    def execute_task(self, task: Task) -> None:
        """Says that a task starts, where the display does not."""
        super().execute_task(task)
        is_counted = self._counts(task)
        if task.actions and not (is_counted and self.display.is_live):
            self.write(f".  {task.title()}\n")

    def add_success(self, task: Task) -> None:
        """Says what a step cost."""
        super().add_success(task)
        record = self.ran.get(task.meta["step"]) if is_step(task) else None
        if record is not None:
            lines = [f"{record.step:<22}{made(record)}",
                     *(f"{'':<24}{note}" for note in note_lines(record))]
            self.write("".join(f"   {line}\n" for line in lines))

    def skip_uptodate(self, task: Task) -> None:
        """Counts, and names only what was asked for."""
        super().skip_uptodate(task)
        if not self._counts(task) and task.actions:
            self.write(f"-- {task.title()}\n")

    def refuse(self, error: SDBuildError) -> None:
        """Says why nothing is started."""
        super().refuse(error)
        sys.stderr.write(f"ERROR: {error}\n")

    def complete_run(self) -> None:
        """Says how many steps ran and how many needed nothing, and what doit itself has to say."""
        self.display.close()
        count, ran = len(self._seen), 0  # no need to look again if nothing ran
        if self.has_run:
            reused, repeated = self.reused_and_repeated()
            count, ran = len(reused), len(self.ran | repeated) if self.ran else 0
        words = [f"{counted(ran, 'step')} ran in {clock(self.seconds)}"] if ran else []
        words += [f"{counted(count, 'step')} up to date"] if count else []
        if words:
            self.write(f"   {', '.join(words)}\n")
        if self._build is not None and self.has_run and not self.failures and self.builder:
            for line in finished(self._build.meta["bundle"], self.builder, self.is_last):
                self.write(f"   {line}\n")
        for message in self.runtime_errors:
            self.write(f"{message}\n")

    def _counts(self, task: Task) -> bool:
        """Numbers a step; returns whether the task is one."""
        if is_step(task):
            self.display.numbers[task.meta["step"]] = len(self.display.numbers) + 1
        return is_step(task)

    def _write_failure(self, result: dict[str, Any], write_exception: bool = True) -> None:
        self.write(f"ERROR in {result['task'].name}:\n{result['exception'].get_msg()}\n")


class Before(Reporter):
    """The reporter of a build that a command begins with."""

    is_last = False
