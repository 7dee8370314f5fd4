"""The fit of steps and workers: what steps ask for, and what is missing where no worker has it.

Dask keeps a task that fits no worker until one joins that it fits, for ever if need be. Here such
steps are refused before anything runs; where the last worker that they fitted leaves later, they
wait for another, as long as that may take, and no longer.
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
    """Returns what a step asks for, with no more memory than the largest worker has that has the
    rest, where its own is an estimate that does not clearly exceed that."""
    rest = {name: count for name, count in asked.items() if name != MEMORY}
    most = max((has[MEMORY] for has in workers if _has(has, rest)), default=0.0)
    is_near = not is_measured and most < asked[MEMORY] <= most * _ESTIMATES
    return {**rest, MEMORY: most if is_near else asked[MEMORY]}


def is_served(asked: Resources, workers: Iterable[Resources]) -> bool:
    """Whether some worker has all that a step asks for."""
    return any(_has(has, asked) for has in workers)


def _has(has: Resources, asked: Resources) -> bool:
    return all(has.get(name, 0.0) >= count for name, count in asked.items())


def unserved(step: str, asked: Resources, workers: Iterable[Resources]) -> SDBuildError:
    """Returns the error of a step that asks for what no worker has: what is missing."""
    workers = list(workers)
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
    """Looks every few seconds which tasks fit no worker, and gives up those that waited too long.

    Args:
        stranded: gives the tasks that fit no worker, each with what is missing.
        say: is called with those when there are some, and there were none before.
        give_up: is called with those whose time is over.
        patience_s: how long a task waits for a worker that it fits.
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
        """Looks until it is left."""
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
