"""Tests of how many steps a build counts, however they overlap."""

import threading
import time
from types import SimpleNamespace

from sdbuild.cli.reporter import Collector


def task(name):
    return SimpleNamespace(name=name, meta={"step": name, "builder": None}, executed=True)


class Slow(Collector):
    """A build whose records take a moment to be found; `records` are those of steps, by name."""

    def __init__(self, records):
        super().__init__()
        self.records = records
        self.looks = threading.Event()

    def _records(self, names):
        found = {name: self.records.get(name) for name in names}
        self.looks.set()
        time.sleep(0.2)
        return found


def test_steps_that_are_found_up_to_date_while_another_starts_are_counted():
    """Threads of doit start steps, while it looks at the next ones itself."""
    build = Slow({"download:unet": 1, "trace:unet": 2})
    build.skip_uptodate(task("download:unet"))
    start = threading.Thread(target=build.execute_task, args=[task("palettize:unet")])
    start.start()
    build.looks.wait()

    build.skip_uptodate(task("trace:unet"))
    start.join()

    assert build.reused() == {"download:unet": 1, "trace:unet": 2}


def test_a_step_that_was_up_to_date_and_ran_again_for_another_is_counted_as_run():
    build = Slow({"download:unet": 1, "trace:unet": 2})
    for name in build.records:
        build.skip_uptodate(task(name))
    build.execute_task(task("palettize:unet"))

    build.records = {"download:unet": 3, "trace:unet": 2}

    assert build.reused_and_repeated() == ({"trace:unet": 2}, {"download:unet": 3})
