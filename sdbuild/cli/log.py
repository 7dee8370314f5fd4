"""Prints the log of library code: progress to standard output, warnings to standard error. Code
outside `cli` never prints."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from sdbuild.cli.display import above

_LOGGER = logging.getLogger("sdbuild")


class _Lines(logging.Handler):
    """Prints each message as a line, above those of steps that run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        with above():
            stream.write(f"{record.getMessage()}\n")
            stream.flush()


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Prints what sdbuild logs meanwhile, once also where it is nested."""
    if any(isinstance(handler, _Lines) for handler in _LOGGER.handlers):
        yield
        return
    handler, level, propagates = _Lines(), _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagates
