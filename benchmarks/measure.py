"""Tools of the benchmarks: the memory of this process, fresh processes, a folder."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_Result = TypeVar("_Result")


@contextmanager
def sampled_memory(every_s: float = 0.01) -> Iterator[list[int]]:
    """A list whose only item is the most anonymous memory so far, in bytes; Linux only."""
    peak, is_over = [_anonymous_bytes()], threading.Event()

    def sample() -> None:
        while not is_over.wait(every_s):
            peak[0] = max(peak[0], _anonymous_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        is_over.set()
        sampler.join()


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def alone(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Returns the result of `function`, called in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def work_folder(path: Path | None) -> Iterator[Path]:
    """The folder at `path`, kept; or one that goes afterwards."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)
