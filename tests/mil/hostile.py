"""Bounds on what readers of hostile files may take."""

import time
import tracemalloc
from contextlib import contextmanager

MOST_SECONDS = 5
MOST_BYTES = 64 << 20


@contextmanager
def bounded():
    """Fails if what is inside takes much time or memory, arrays of numpy included."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < MOST_SECONDS
    assert peak < MOST_BYTES
