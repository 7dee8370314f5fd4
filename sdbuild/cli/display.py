"""The live line of a build: a terminal shows how far each running step is; others show nothing.

    [14/25] palettize:unet ██████▍     171/282 tensors  0:38 left · 0.8 GB
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdbuild.base.printable import unwrapped
from sdbuild.base.progress import Progress
from sdbuild.base.units import clock, size

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from sdbuild.engine.process import Watch

_EIGHTHS = " ▏▎▍▌▋▊▉"
_WIDEST_BAR, _NARROWEST_BAR = 24, 6
_A_SECOND = 8
"""Redraws of the line per second."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A step that runs: what the terminal shows of it.

    Units:
        started: seconds of a monotonic clock; expected: seconds that it will take, if known.
    """

    name: str
    number: int
    expected: float | None
    started: float = field(default_factory=time.monotonic)
    progress: Progress | None = None
    held_bytes: int = 0

    def watch(self, progress: Progress | None, held_bytes: int) -> None:
        """Takes what is known of the step now."""
        self.progress, self.held_bytes = progress, held_bytes

    def left(self) -> str:
        """Returns the time that it still takes, or has taken so far if nothing tells."""
        so_far = time.monotonic() - self.started
        if self.progress and self.progress.done and self.progress.total and so_far > 1:
            done, total = self.progress.done, self.progress.total
            return f"{clock(so_far * (total - done) / done)} left"
        if self.expected and self.expected > so_far:
            return f"about {clock(self.expected - so_far)} left"
        return clock(so_far)


_lock = threading.RLock()
"""Held while drawing or printing: `-n` runs steps in threads."""


class Display:
    """Lines for the steps that run at the moment, below all that is printed.

    Args:
        stream: the output; lines are shown if it is a terminal that can redraw them.
    """

    def __init__(self, stream: Any = None) -> None:
        stream = unwrapped(sys.stderr if stream is None else stream)
        self._stream = stream if is_live(stream, os.environ) else None
        self._running: list[_Running] = []
        self._live: Live | None = None
        self._is_closed = False
        self._console: Console | None = None
        self.numbers: dict[str, int] = {}
        self.total = 0

    @property
    def is_live(self) -> bool:
        """Whether lines are shown at all."""
        return self._stream is not None

    @contextlib.contextmanager
    def watching(self, step: str, seconds: float | None) -> Iterator[Watch | None]:
        """Shows a step while it runs."""
        if self._stream is None:
            yield None
            return
        running = _Running(name=step, number=self.numbers.get(step, 0), expected=seconds)
        with _lock:
            self._running.append(running)
            self._start()
        try:
            yield running.watch
        finally:
            with _lock:
                self._running.remove(running)
                if not self._running:
                    self.stop()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Takes the lines away while something is printed."""
        with _lock:
            was_shown = self._live is not None
            self.stop()
            try:
                yield
            finally:
                if was_shown and self._running:
                    self._start()

    def stop(self) -> None:
        """Takes the lines away. An interrupt may come at any place here and in `_start`."""
        with _lock:
            live, self._live = self._live, None
            if self in _shown:
                _shown.remove(self)
            if live is not None:
                live.stop()

    def close(self) -> None:
        """Takes the lines away for good, though steps may still be ending."""
        with _lock:
            self._is_closed = True
            self.stop()

    def _start(self) -> None:
        if self._live is None and not self._is_closed:
            from rich.live import Live

            self._console = self._console or _console(self._stream)
            self._live = Live(
                console=self._console, get_renderable=self._lines, transient=True,
                refresh_per_second=_A_SECOND, redirect_stdout=False, redirect_stderr=False,
            )
            _shown.append(self)
            self._live.start(refresh=True)

    def _lines(self) -> RenderableType:
        from rich.text import Text

        assert self._console is not None
        width, is_ascii = self._console.width, not self._console.encoding.startswith("utf")
        return Text("\n", no_wrap=True, overflow="crop").join(
            _line(running, self.total, width - 1, is_ascii) for running in list(self._running))


_shown: list[Display] = []


@contextlib.contextmanager
def above() -> Iterator[None]:
    """Takes the lines of all displays away while something is printed."""
    with _lock, contextlib.ExitStack() as hidden:
        for display in list(_shown):
            hidden.enter_context(display.hidden())
        yield


def is_live(stream: Any, environment: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal whose lines can be drawn again and that somebody looks at."""
    return (stream.isatty() and not environment.get("CI")
            and environment.get("TERM", "dumb") not in ("", "dumb", "unknown"))


def _console(stream: Any) -> Console:
    """Returns a console that never hides the cursor, which a build that is killed would leave
    hidden."""
    from rich.console import Console

    class Visible(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Visible(file=stream, force_terminal=True, highlight=False)


def _line(running: _Running, total: int, width: int, is_ascii: bool) -> Text:
    """Returns a step as one line of at most `width` characters; a bar takes the room that is
    left."""
    from rich.text import Text

    number = f"[{running.number}/{total}] " if running.number else ""
    progress = running.progress
    counted = "" if progress is None else _counted(progress) + "  "
    held = f"{', ' if is_ascii else ' · '}{size(running.held_bytes)}" if running.held_bytes else ""
    rest = f"{counted}{running.left()}{held}"
    room = min(_WIDEST_BAR, width - len(number) - len(running.name) - len(rest) - 2)
    line = Text(number, style="dim", no_wrap=True).append(f"{running.name} ", style="not dim bold")
    if progress is not None and progress.total and room >= _NARROWEST_BAR:
        line.append(bar(progress.done / progress.total, room, is_ascii) + " ", "not dim cyan")
    line.append(rest, style="not dim")
    line.truncate(width)
    return line


def _counted(progress: Progress) -> str:
    if progress.unit == "bytes":
        return f"{size(progress.done)} of {size(progress.total)}"
    return f"{progress.done}/{progress.total} {progress.unit}"


def bar(part: float, width: int, is_ascii: bool = False) -> str:
    """Returns a bar of `width` characters of which a part, from 0 to 1, is full."""
    eighths = round(min(max(part, 0.0), 1.0) * width * 8)
    if is_ascii:
        return ("#" * (eighths // 8)).ljust(width, "-")
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(width)
