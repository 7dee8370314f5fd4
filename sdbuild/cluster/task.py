"""A step as a task of Dask: what is sent to a worker, what it does there, and what comes back.

Content goes through the shared store alone. What comes back is small: the key of the artifact, and
what decides where its readers run and whether it is uploaded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import get_worker

from sdbuild.base.digest import Key
from sdbuild.base.errors import SDBuildError
from sdbuild.base.machine import usable_bytes
from sdbuild.cluster.uploads import Readers, is_worth_it, moved_s
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import Plan
from sdbuild.recipe.settings import store_folder
from sdbuild.store import Record, Store
from sdbuild.store.remote.remote import remote_at

FOUND = "found"
RAN = "ran"
FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One step of a plan, with those before it, and where its artifact goes.

    `digests` are those of what steps read from outside, as the machine found them that planned;
    `cache` the store, None for the worker's own; `remote` the shared store, whose URL may hold
    credentials. `topic` is where the worker tells what became of it.
    """

    node: str
    step: str
    plan: Plan
    readers: Readers
    topic: str
    digests: Mapping[str, Mapping[str, str]]
    cache: Path | None = None
    remote: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The value of a task: the key of an artifact that is made, and what its readers cost.

    Units:
        remake_s: seconds to make it again, with all before it that is not in the shared store; none
            if it is there.
        weight_bytes: the seconds in which another worker has it, as what Dask sends in that time.
            By them it compares a worker that has it with one that is free sooner.
    """

    key: Key
    remake_s: float
    weight_bytes: int

    def __sizeof__(self) -> int:
        return self.weight_bytes


class StepFailed(Exception):
    """A step failed: the node that stands for it, and its error. The nodes after it get it too."""

    def __init__(self, node: str, error: SDBuildError) -> None:
        super().__init__(node, error)
        self.node = node
        self.error = error


def make(task: Task, *needs: Made) -> Made:
    """Makes the artifact of a step, on a worker; one that is made already is not made again.

    A builder is new for each task, because a shared store is asked once for each key.

    Raises:
        StepFailed: it cannot be made; it is not tried again.
    """
    told: list[str] = []
    try:
        with _collected(told):
            made, record, state = _made(task, sum(need.remake_s for need in needs))
    except SDBuildError as error:
        _tell(task, FAILED, told, error=error.message)
        raise StepFailed(task.node, error) from None
    _tell(task, state, told, key=record.key, seconds=record.seconds,
          peak_bytes=record.peak_bytes, size_bytes=record.size_bytes)
    return made


def _made(task: Task, before_s: float) -> tuple[Made, Record, str]:
    store = Store(task.cache or store_folder({}))
    remote = remote_at(task.remote, store)
    builder = Builder(task.plan, store, usable_bytes(), remote, task.digests)
    uploaded: dict[Key, bool] = {}

    def uploads(record: Record) -> bool:
        is_wanted = remote is not None and record.step == task.step and is_worth_it(
            task.readers, record.size_bytes, record.seconds + before_s, remote.bytes_s)
        uploaded[record.key] = is_wanted
        return is_wanted

    builder.uploads = uploads
    with store.in_use(task.step):
        record = builder.state(task.step).record
        state = RAN if record is None else FOUND
        if record is None:
            record = builder.make_all(task.step)
            state = RAN if record.key in uploaded or remote is None else FOUND
        elif remote is not None and not record.origin:  # made here, before there was a shared store
            remote.push(record, is_whole=store.has_content(record) and uploads(record))
    is_there = uploaded.get(record.key, bool(record.origin))
    remake_s = 0.0 if is_there else record.seconds + before_s
    seconds = moved_s(record.size_bytes, remake_s, remote.bytes_s) if remote else 0.0
    return Made(key=record.key, remake_s=remake_s,
                weight_bytes=int(seconds * get_worker().bandwidth)), record, state


@contextmanager
def _collected(lines: list[str]) -> Iterator[None]:
    """Collects what sdbuild says in this thread meanwhile."""
    thread = threading.get_ident()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                lines.append(record.getMessage().strip())

    logger, handler = logging.getLogger("sdbuild"), Lines(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _tell(task: Task, state: str, lines: list[str], **facts: Any) -> None:
    """Reports the end of a task to those that wait for it."""
    worker = get_worker()
    worker.log_event(task.topic, {"node": task.node, "step": task.step, "state": state,
                                  "machine": str(worker.name), "lines": lines, **facts})
