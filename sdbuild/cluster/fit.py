"""Resource requirements of steps, and the errors of steps that no worker can run.

Dask keeps a task that no worker can run until a suitable worker joins, possibly for ever. Here such
steps are refused before anything runs. If the last suitable worker leaves during a build, they wait
for another one, up to a time limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sdbuild.base.errors import OutOfMemory, SDBuildError, ToolMissing
from sdbuild.base.units import several, size
from sdbuild.cluster.worker import APPLE, MEMORY, NETWORK, PLACE, TOOLS

Resources = Mapping[str, float]
Stranded = Mapping[str, SDBuildError]

_ESTIMATES = 1.25
"""The factor by which an estimate of memory must exceed what a worker has, before it is refused."""

_EVERY_S = 2.0
_WORDS = {
    NETWORK: "a way to the Hub (network)",
    APPLE: "Apple's compiler of models (apple_compiler)",
    PLACE: "the files of the checkpoint",
    TOOLS: "the code and tools of this machine",
}
_HINTS = {
    MEMORY: "start a worker with more: dask worker --resources memory=BYTES",
    NETWORK: "start a worker that can reach it",
    APPLE: "start a worker on a Mac with Xcode, or use compiler=portable",
    PLACE: "start a worker where they are",
    TOOLS: "install the same versions and code on all machines (pip install --constraint)",
}


def fitted(asked: Resources, workers: Iterable[Resources], is_measured: bool) -> dict[str, float]:
    """Returns the resources that a step requires. Memory that is only an estimate, and
    slightly above the most of any suitable worker, is reduced to that."""
    rest = {name: count for name, count in asked.items() if name != MEMORY}
    most = max((has[MEMORY] for has in workers if _has(has, rest)), default=0.0)
    is_near = not is_measured and most < asked[MEMORY] <= most * _ESTIMATES
    return {**rest, MEMORY: most if is_near else asked[MEMORY]}


def is_served(asked: Resources, workers: Iterable[Resources]) -> bool:
    """Returns True if a worker has all resources that a step requires."""
    return any(_has(has, asked) for has in workers)


def _has(has: Resources, asked: Resources) -> bool:
    return all(has.get(name, 0.0) >= count for name, count in asked.items())


def unserved(step: str, asked: Resources, workers: Iterable[Resources]) -> SDBuildError:
    """Returns the error of a step that no worker can run; it names the missing resources."""
    workers = list(workers)
    if not workers:
        return ToolMissing(f"{step}: no worker is left",
                           hint="start one: dask worker ADDRESS; --on dask starts its own again")
    kinds = {kind: name for name in asked for kind in (*_WORDS, MEMORY) if name.startswith(kind)}
    lacking = [kind for kind, name in kinds.items()
               if not any(has.get(name, 0.0) >= asked[name] for has in workers)]
    if lacking == [MEMORY]:
        most = max((has.get(MEMORY, 0.0) for has in workers), default=0.0)
        return OutOfMemory(
            f"{step} needs {size(int(asked[MEMORY]))} of memory, and no worker has more than "
            f"{size(int(most))}", hint=_HINTS[MEMORY], step=step,
            needed_bytes=int(asked[MEMORY]), limit_bytes=int(most))
    missing = lacking or list(kinds)  # else some worker has each, and none has all
    words = {**_WORDS, MEMORY: f"{size(int(asked[MEMORY]))} of memory"}
    return ToolMissing(
        f"{step}: no worker has {several([words[kind] for kind in missing])}",
        hint="; ".join(_HINTS[kind] for kind in missing))


class Watch(threading.Thread):
    """Checks every few seconds for tasks that no worker can run, and gives up those that waited too
    long.

    Args:
        stranded: returns the tasks that no worker can run, each with its error.
        say: called with those tasks when the first ones appear.
        give_up: called with the tasks that waited longer than `patience_s`.
        patience_s: the longest time that a task waits for a suitable worker.
    """

    def __init__(
        self, stranded: Callable[[], Stranded], say: Callable[[Stranded], None],
        give_up: Callable[[Stranded], None], patience_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self._stranded = stranded
        self._say = say
        self._give_up = give_up
        self._patience_s = patience_s
        self._is_over = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_over.set()
        self.join(_EVERY_S)  # a scheduler that is gone may keep it longer

    def run(self) -> None:
        """Runs until the context ends."""
        since: dict[str, float] = {}
        while not self._is_over.wait(_EVERY_S):
            found, now = self._stranded(), time.monotonic()
            if found and not since:
                self._say(found)
            since = {task: since.get(task, now) for task in found}
            late = {task: error for task, error in found.items()
                    if now - since[task] >= self._patience_s}
            if late:
                self._give_up(late)
