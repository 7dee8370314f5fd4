"""Memory as a promise: no step starts that cannot fit, and none beside others that it does not fit.

What steps hold is reserved in the store, so that the promise holds for all that build in it: a file
for each step that runs, `locks/ram/<pid>-<n>`, whose lock goes with the process. Nothing here
changes an artifact's bytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import OutOfMemory, SDBuildError
from sdbuild.base.parsing import Fields, json_object
from sdbuild.base.units import size
from sdbuild.engine.cost import Cost
from sdbuild.engine.step import Step
from sdbuild.store import Store
from sdbuild.store.locks import grab
from sdbuild.store.scan import entries

LOG = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_CLEARLY = 1.25
"""The factor by which an estimate must exceed the limit before a step is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Memory that a step holds while it runs."""

    step: str
    bytes: int
    pid: int

    def __str__(self) -> str:
        return f"{self.step} ({size(self.bytes)}, process {self.pid})"


class Ram:
    """The memory that steps may hold together, in all builds that share a store.

    Units:
        limit: bytes.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self.limit = limit
        self._store = store
        self._folder = store.root / "locks" / "ram"

    @contextlib.contextmanager
    def reserved(self, step: str, cost: Cost) -> Iterator[int]:
        """Holds memory for a step and gives how many bytes; waits until there are enough.

        They are all that the step can use, if so many are free, and never less than it needs. A
        step that would be alone never waits. Standard error says once for whom it waits.
        """
        has_reported = False
        while isinstance(found := self._claim(step, cost), list):
            if not has_reported:
                LOG.warning("   %s waits for %s of the %s of memory, reserved by %s", step,
                            size(cost.least_bytes), size(self.limit), ", ".join(map(str, found)))
                has_reported = True
            time.sleep(_LOOK_EVERY_S)
        handle, path, count = found
        try:
            yield count
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)

    def _reservations(self) -> list[Reservation]:
        """Returns what running steps hold; what a kill left behind goes. Hold the store's lock."""
        found = []
        for path in sorted(entries(self._folder)):
            handle = grab(path)
            if handle is None:
                with contextlib.suppress(FileNotFoundError):  # it has just ended
                    found.append(_reservation(path.read_bytes()))
            else:
                path.unlink(missing_ok=True)
                os.close(handle)
        return found

    def _claim(self, step: str, cost: Cost) -> tuple[int, Path, int] | list[Reservation]:
        """Returns a reservation and its bytes; or who holds what, if there is too little left."""
        with self._store.locked("memory"):
            others = self._reservations()
            free = self.limit - sum(held.bytes for held in others)
            if others and cost.least_bytes > free:
                return others
            count = min(cost.most_bytes, max(cost.least_bytes, free))
            path = self._folder / f"{os.getpid()}-{threading.get_ident()}"
            handle = grab(path)
            assert handle is not None  # no other has our name
            try:
                own = Reservation(step=step, bytes=count, pid=os.getpid())
                path.write_text(json.dumps(asdict(own)))
            except OSError:
                path.unlink(missing_ok=True)
                os.close(handle)
                raise
        return handle, path, count


def _reservation(content: bytes) -> Reservation:
    """Returns a reservation as its holder wrote it; of one that cannot be read nothing is known."""
    try:
        found = Fields(json_object(content, "a reservation"), "a reservation")
        return Reservation(step=found.text("step"), bytes=found.integer("bytes"),
                           pid=found.integer("pid"))
    except SDBuildError:
        return Reservation(step="an unknown step", bytes=0, pid=0)


def refuse_too_large(step: Step, cost: Cost, limit: int) -> None:
    """Refuses a step that cannot fit.

    Raises:
        OutOfMemory: it held more than `limit` bytes before, or is estimated to clearly need more.
    """
    needed = min(cost.least_bytes, cost.peak_bytes)
    if needed <= limit * (1 if cost.is_measured else _CLEARLY):
        return
    found = "holds" if cost.is_measured else "probably holds"
    source = "as measured before" if cost.is_measured else "an estimate from its size"
    raise OutOfMemory(
        f"{step.name} {found} {size(needed)} of memory ({source}), "
        f"more than the {size(limit)} that it may",
        hint=hint(step.kind, step.params), step=step.name,
        needed_bytes=needed, limit_bytes=limit,
    )


def hint(kind: str, params: Mapping[str, Any]) -> str:
    """Returns what helps where a step has too little memory."""
    ways = []
    if params.get("lower") == "direct":
        ways.append("lower=once needs a fraction of it")
    if "width_px" in params:
        ways.append("a smaller size= needs less")
    if kind in ("trace", "lower"):
        ways.append("another machine can make it once for all checkpoints of the architecture")
    ways.append("close other programs, and allow what the machine has with ram=SIZE")
    return "; ".join(ways)
