"""Bounds on work: calls are the same in number on every machine, however busy; seconds are not."""

import sys
from contextlib import contextmanager


@contextmanager
def bounded_calls(most):
    """Fails if what is inside makes more calls, of Python's functions and of C's, in this thread.

    It does not look into one call of C: what hangs there is shown by pytest's
    `faulthandler_timeout`.
    """
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert count <= most, f"{count} calls"
