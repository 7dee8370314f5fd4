"""Progress of long work: reported by the code that does it, to listeners in this process.

    for tensor in each(tensors, "tensors"):

Reports cost nothing where nobody listens. The process of a step sends them to the process that
started it through a pipe, `Channel`, as lines of JSON; those that find no room in it are dropped,
so that a terminal that stands still holds up no work.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TypeVar

from sdbuild.base.parsing import Fields, Malformed, json_object

UNITS = ("tensors", "bytes", "passes", "images", "steps")
"""The units in which progress is counted."""

_EVERY_S = 0.1
_LONGEST_LINE = 200
_MOST_BYTES = 1 << 16
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Progress:
    """The number of `unit` that are done, or being worked on, of a total."""

    done: int
    total: int
    unit: str


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Has the listener called with each report of this process, in the thread that makes it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def report(done: int, total: int, unit: str) -> None:
    """Reports how far the work is; `unit` is one of `UNITS`."""
    for listener in _listeners:
        listener(Progress(done, total, unit))


def each(items: Iterable[_Item], unit: str, total: int | None = None) -> Iterator[_Item]:
    """Returns the items and reports the number of each; `total` where they have no length."""
    count = total if total is not None else len(items) if isinstance(items, Collection) else 0
    for number, item in enumerate(items, 1):
        report(number, count, unit)
        yield item


def sender(writer: int) -> Listener:
    """Returns a listener that writes reports to the pipe of a `Channel`, the last and ten a
    second."""
    due = 0.0

    def send(progress: Progress) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due or progress.done == progress.total:
            due = now + _EVERY_S
            with contextlib.suppress(OSError):  # the pipe is full, or nobody reads it any more
                os.write(writer, json.dumps(asdict(progress)).encode() + b"\n")

    return send


class Channel:
    """A pipe for the reports of one process; `writer` is the end that it inherits.

    Whatever comes through is hostile until it is parsed: a line that is no report is ignored.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self.writer, False)
        self._rest = b""
        self._last: Progress | None = None

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._reader)
        os.close(self.writer)

    def read(self) -> Progress | None:
        """Returns the last report so far; None before the first. It never waits."""
        with contextlib.suppress(BlockingIOError):
            *lines, rest = (self._rest + os.read(self._reader, _MOST_BYTES)).split(b"\n")
            self._rest = rest[:_LONGEST_LINE]
            found = (_parsed(line) for line in reversed(lines))
            self._last = next((progress for progress in found if progress), self._last)
        return self._last


def _parsed(line: bytes) -> Progress | None:
    try:
        fields = Fields(json_object(line, "progress", Malformed, most_bytes=_LONGEST_LINE),
                        "progress", Malformed)
        total = fields.integer("total")
        return Progress(fields.integer("done", high=total), total, fields.choice("unit", UNITS))
    except Malformed:
        return None
