"""Waiting for what other processes do, as long as it takes on a busy machine."""

import time

_PATIENCE_S = 600
"""After which a test has hung: far more than anything takes beside twenty other processes."""
_EVERY_S = 0.02


def wait_for(happens, process=None):
    """Waits until something happens, in a process that goes on until then; what it gave.

    The deadline ends a test that hangs, and asserts no speed.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := happens()):
        assert process is None or process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(_EVERY_S)
    return found
