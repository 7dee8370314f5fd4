"""A plan as doit tasks.

One task a step (`convert:unet`), and `build`, `contract`, `check`, `generate` and `report`
above them. The
store says what is up to date; doit's own database may be deleted at any time.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from doit import doit_cmd
from doit.action import PythonAction
from doit.exceptions import TaskFailed

from sdbuild.base.errors import SDBuildError, SourceError
from sdbuild.base.machine import PATIENT
from sdbuild.base.printable import any_locale, printable
from sdbuild.bundle.install import check_replaceable, install, install_problem, remove
from sdbuild.cli.finished import OF_IMAGE
from sdbuild.cli.format import relative
from sdbuild.engine.build import Builder
from sdbuild.engine.stage import stage
from sdbuild.engine.step import Step
from sdbuild.recipe.fields import AGAINST_FIELD
from sdbuild.recipe.project import IMPORT_ROOT
from sdbuild.recipe.settings import Settings, settings
from sdbuild.reports.check import report
from sdbuild.store import Record, Store, check_place

Action = Callable[[], TaskFailed | None]
LOG = logging.getLogger(__name__)


def variables() -> dict[str, str]:
    """Returns the `name=value` words of doit's command line.

    doit gives one variable at a time by its name; an unknown name shows only in the whole table.
    """
    return dict(doit_cmd._CMDLINE_VARS or {})


def load(words: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yields the tasks for a command line's variables; a mistake in them ends doit with status 2, a
    checkpoint that cannot be read with 1."""
    sys.excepthook = _tell_interrupt
    any_locale()
    try:
        return tasks(*prepared(words))
    except (SDBuildError, OSError) as error:
        sys.stderr.write(printable(f"ERROR: {error}\n"))
        raise SystemExit(1 if isinstance(error, SourceError) else 2) from None


def prepared(words: Mapping[str, str]) -> tuple[Builder, Settings]:
    """Returns the builder that variables ask for, and their settings, which are sound together.

    Raises:
        RecipeError: an unknown variable, or a value that is not allowed.
        SourceError: a source without a recipe cannot be read.
        StoreError: the store or the bundle cannot be where it is wanted.
    """
    found = settings(words)
    check_place(found.cache)
    check_replaceable(found.bundle)
    return Builder.of(found), found


def _tell_interrupt(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Says one line for Ctrl-C, which doit leaves to Python's traceback."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted; finished steps are kept, so the same command resumes\n")
        sys.stderr.flush()
        os._exit(130)  # the threads of `doit -n` would report that their steps ended
    else:
        sys.__excepthook__(kind, error, trace)


def tasks(
    builder: Builder, found: Settings, named: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yields a task for each step, and `build`, `contract`, `check`, `generate` and `report`.

    Args:
        named: the tasks that are asked for by name. Of a step among them its content is wanted, of
            others what running steps read.
    """
    for kind in dict.fromkeys(step.kind for step in builder.plan.steps.values() if step.component):
        yield {"basename": kind, "name": None, "doc": stage(kind).summary}
    for step in builder.plan.steps.values():
        yield _step_task(builder, step, is_named=step.name in named or step.kind in named)
    yield _build_task(builder, found)
    yield _contract_task(found)
    yield _check_task(builder, found)
    yield _generate_task(found)
    yield _report_task(builder, found)


def _step_task(builder: Builder, step: Step, *, is_named: bool) -> dict[str, Any]:
    def run() -> TaskFailed | None:
        _keep_in_use(builder.store)
        builder.make(step.name, is_whole=False)
        return None

    def is_made() -> bool:
        if not is_named:
            return builder.is_made(step.name)
        state = builder.state(step.name)
        return state.record is not None and (
            builder.may_fetch(state.record) or not builder.flaws(state, is_whole=False))

    def drop_record() -> None:
        state = builder.state(step.name)
        if state.key and builder.store.forget(state.key):
            print(f"{step.name}: record {state.key[:8]} dropped")

    doc = step.stage.summary + (f": {step.component}" if step.component else "")
    name = {"basename": step.kind} | ({"name": step.component} if step.component else {})
    return name | {
        "actions": [_guarded(run)],
        "uptodate": [_false_on_error(is_made)],
        "task_dep": list(dict.fromkeys(source.step for source in step.inputs.values())),
        "clean": [_Clean("drop its record", drop_record)],
        "doc": doc,
        "meta": {"builder": builder, "step": step.name},
        "io": {"capture": False},
    }


def _build_task(builder: Builder, found: Settings) -> dict[str, Any]:
    store = builder.store

    def is_installed() -> bool:
        record = builder.state("bundle").record
        return record is not None and not install_problem(record, store, found.bundle)

    def run() -> TaskFailed | None:
        def put(record: Record) -> Record:
            install(record, store, found.bundle)
            return record

        _keep_in_use(builder.store)
        facts = builder.deliver("bundle", put).facts
        for line in (*facts.get("warnings", ()), *facts.get("hosts", ())):
            LOG.info("%s", line)
        return None

    def remove_bundle() -> None:
        if remove(found.bundle):
            print(f"{relative(found.bundle)} removed")

    return {
        "basename": "build",
        "actions": [_guarded(run)],
        "uptodate": [_false_on_error(is_installed)],
        "task_dep": ["bundle"],
        "clean": [_Clean("delete the bundle", remove_bundle)],
        "doc": "build the bundle",
        "title": lambda task: f"build  {relative(found.bundle)}",
        "meta": {"bundle": found.bundle},
        "io": {"capture": False},
    }


def _contract_task(found: Settings) -> dict[str, Any]:
    return {
        "basename": "contract",
        "actions": [_command("contract", str(found.bundle))],
        "task_dep": ["build"],
        "doc": "check that hosts can load the bundle",
        "verbosity": 2,
        "io": {"capture": False},
    }


def measurements(builder: Builder) -> tuple[list[str], list[str]]:
    """Returns the steps that measure parity, and the one that draws pictures if there is one."""
    steps = builder.plan.steps
    return [name for name in steps if name.startswith("parity:")], [n for n in steps
                                                                    if n == "pictures"]


def _check_task(builder: Builder, found: Settings) -> dict[str, Any]:
    names, drawn = measurements(builder)

    def run() -> TaskFailed | None:
        records = {name.partition(":")[2]: builder.make(name) for name in names}
        pictures = builder.make(drawn[0]) if drawn else None
        print(report(records, pictures, builder.store, found.recipe))
        return None

    against = found.words.get(AGAINST_FIELD.name)
    own = [f"--{name}={value}" for name, value in found.words.items() if name in OF_IMAGE]
    compare = [_command("check", str(found.bundle), f"--against={against}", *own,
                        f"--predictor={found.predictor}", folder=Path.cwd())] if against else []
    return {
        "basename": "check",
        "actions": [_guarded(run), *compare],
        "task_dep": [*names, *drawn, *(["build"] if against else [])],
        "doc": "compare components and images with the PyTorch original",
        "verbosity": 2,
        "io": {"capture": False},
    }


def _generate_task(found: Settings) -> dict[str, Any]:
    options = found.recipe.request.settings() | {
        "out": found.out, "report": found.report, "trace": found.trace,
        "predictor": found.predictor}
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return {
        "basename": "generate",
        "actions": [_command("generate", str(found.bundle), *words)],
        "task_dep": ["build"],
        "doc": "generate images with the bundle",
        "verbosity": 2,
        "io": {"capture": False},
    }


def _report_task(builder: Builder, found: Settings) -> dict[str, Any]:
    names, drawn = measurements(builder)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in found.words.items()]
    return {
        "basename": "report",
        "actions": [_command("report", *words, folder=Path.cwd())],
        "task_dep": ["build", *names, *drawn],
        "doc": "write a page on the bundle: images, sizes, quality, costs, provenance",
        "verbosity": 2,
        "io": {"capture": False},
    }


def _command(name: str, *words: str, folder: Path = IMPORT_ROOT) -> Action:
    """Returns an action that runs a command of sdbuild, which imports what doit must not.

    Args:
        folder: that relative paths in the words are in.
    """
    def action() -> TaskFailed | None:
        found = os.pathsep.join(filter(None, (str(IMPORT_ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-m", "sdbuild", name, *words], cwd=folder,
            env=os.environ | PATIENT | {"PYTHONPATH": found}, check=False,
        )
        if done.returncode < 0:
            return TaskFailed(_killed(name, -done.returncode))
        if done.returncode:
            return TaskFailed(f"{name} ended with status {done.returncode}", report=False)
        return None
    return action


def _killed(name: str, number: int) -> str:
    """Returns the error of a command whose process a signal ended.

    Core ML kills the process it runs in where the compiler of the Neural Engine fails (coremltools,
    issue 2758), and the system does where memory runs out.
    """
    return (f"{name}: its process was killed (signal {number})\n\n"
            "hint: where Core ML did it, predictor=portable runs the models without it; where "
            "memory ran out, close other programs")


def _guarded(run: Action) -> Action:
    """Returns the action, its errors reported by doit without a traceback.

    What it prints is made safe around the whole run: `doit -n` has actions overlap in threads.
    """
    def action() -> TaskFailed | None:
        try:
            return run()
        except SDBuildError as error:
            failed = TaskFailed(str(error))
            failed.error = error  # for who builds from Python
            return failed
    return action


def _false_on_error(holds: Callable[[], bool]) -> Callable[[], bool]:
    """Returns the condition, false where it is unknown: running the task will say what is
    wrong."""
    def condition() -> bool:
        try:
            return holds()
        except SDBuildError:
            return False
    return condition


class _Clean(PythonAction):
    """An action of `doit clean`, which has no failures: its errors are reported and end doit.

    Args:
        what: it does, in words: doit tells it.
    """

    def __init__(self, what: str, clean: Callable[[], None]) -> None:
        def action() -> None:
            try:
                clean()
            except SDBuildError as error:
                sys.stderr.write(printable(f"ERROR: {error}\n"))
                raise SystemExit(1) from None
        super().__init__(action)
        self._what = what

    def __str__(self) -> str:
        return self._what


_in_use: dict[Path, AbstractContextManager[None]] = {}


def _keep_in_use(store: Store) -> None:
    """Keeps collectors out from the first step to the end of the build, or of the process: what a
    step made is there for the next one."""
    if store.root not in _in_use:
        held = _in_use.setdefault(store.root, store.in_use("a build"))
        held.__enter__()


def release(store: Store) -> None:
    """Lets collectors in again, after a build in a process that goes on."""
    if held := _in_use.pop(store.root, None):
        held.__exit__(None, None, None)
