"""Bounds on what readers of hostile files may take."""

import tracemalloc
from contextlib import contextmanager

from tests.counting import bounded_calls

MOST_CALLS = 2_000_000
MOST_BYTES = 64 << 20


@contextmanager
def bounded():
    """Fails if what is inside takes much work or memory, arrays of numpy included."""
    tracemalloc.start()
    try:
        with bounded_calls(MOST_CALLS):
            yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
