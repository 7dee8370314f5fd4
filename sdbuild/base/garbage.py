"""Python's search for garbage, where next to none is made."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

_OBJECTS = 50_000
"""New objects between two searches, in place of 700 (2,000 since Python 3.13)."""


@contextlib.contextmanager
def rare_searches() -> Iterator[None]:
    """Searches for garbage less often for a while.

    Each node of a graph, and each operation of a program, is dozens of objects that stay and refer
    to each other. To look through them again and again took a sixth of a trace and a tenth of a
    lowering.
    """
    before = gc.get_threshold()
    if before[0]:  # 0: whoever called does not want it searched for at all
        gc.set_threshold(max(before[0], _OBJECTS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Searches for no garbage while modules are imported, and never in what they made.

    It stays as long as the process, and with torch it is a quarter of a million objects: to look
    through them again and again took a fifth of its import. What else there is by then is not
    searched any more either, so this is for programs.
    """
    is_searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_searched:
            gc.enable()


def leave(status: int) -> NoReturn:
    """Ends this process with an exit status, as `sys.exit` does, without finalizing Python.

    Finalization clears all modules and collects what is left of them: with torch and coremltools
    that takes over a second. Exit handlers still run, and output is still flushed.
    """
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:  # a full disk or a closed pipe, which Python reports with a status of its own
        sys.exit(status)
    os._exit(status)


def skip_last_collection() -> None:
    """Spares this process the garbage collection of Python's finalization, which takes half a
    second with torch. Unlike after `leave`, profilers still write what they found."""
    atexit.register(gc.freeze)
