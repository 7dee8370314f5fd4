"""Progress of a build on the terminal, as doit runs its tasks."""

from __future__ import annotations

import contextlib
from typing import Any

from doit.reporter import ConsoleReporter
from doit.task import Task

from sdbuild.base.errors import SDBuildError
from sdbuild.base.printable import Printable
from sdbuild.base.units import counted
from sdbuild.cli.format import made, note_lines
from sdbuild.engine.build import Builder
from sdbuild.store import Record


class Reporter(ConsoleReporter):
    """Tells of each step what it cost; of what is up to date only how much there was."""

    desc = "sdbuild's own: what ran and what it cost"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(Printable(outstream), options)
        self.up_to_date: dict[str, Record | None] = {}
        self.builder: Builder | None = None
        self.has_run = False

    def execute_task(self, task: Task) -> None:
        """Says that a task starts."""
        if not self.has_run:
            self.has_run = True
            self.up_to_date = self._records(list(self.up_to_date))
        if task.actions:
            self.write(f".  {task.title()}\n")
            self.outstream.flush()

    def add_success(self, task: Task) -> None:
        """Says what a step cost."""
        if task.meta and task.executed:
            record = task.meta["builder"].state(task.meta["step"]).record
            if record is not None:
                self.write(f"   {record.step:<22}{made(record)}\n")
                for note in note_lines(record):
                    self.write(f"   {'':<24}{note}\n")

    def skip_uptodate(self, task: Task) -> None:
        """Counts, and names only what was asked for."""
        if task.meta:
            name, self.builder = task.meta["step"], task.meta["builder"]
            self.up_to_date |= self._records([name]) if self.has_run else {name: None}
        elif task.actions:
            self.write(f"-- {task.title()}\n")

    def complete_run(self) -> None:
        """Says how many steps needed nothing, and what doit itself has to say."""
        count = len(self.up_to_date)
        if self.has_run:  # what seemed up to date was run again where its content was lost
            now = self._records(list(self.up_to_date))
            count = sum(now[name] == record for name, record in self.up_to_date.items())
        if count:
            self.write(f"   {counted(count, 'step')} up to date\n")
        for message in self.runtime_errors:
            self.write(f"{message}\n")

    def _records(self, names: list[str]) -> dict[str, Record | None]:
        with contextlib.suppress(SDBuildError):
            if self.builder is not None:
                states = self.builder.states(names)
                return {name: states[name].record for name in names}
        return dict.fromkeys(names)

    def _write_failure(self, result: dict[str, Any], write_exception: bool = True) -> None:
        self.write(f"ERROR in {result['task'].name}:\n{result['exception'].get_msg()}\n")
