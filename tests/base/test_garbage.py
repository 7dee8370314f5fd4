"""The number of searches for garbage."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.base.garbage import importing, rare_searches

LEAVES = """
import atexit, gc, sys
from sdbuild.base.garbage import leave
atexit.register(print, "cleaned up")
gc.callbacks.append(lambda *_: print("searched", file=sys.stderr))
print("said", end=", ")
leave(3)
"""


class Node:
    """An object that refers to itself, as what is searched for does."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def searches():
    """The searches that began, and the thresholds as they are by default."""
    found, before = [], gc.get_threshold()

    def note(phase, info):
        if phase == "start":
            found.append(info["generation"])
    gc.set_threshold(700, 10, 10)
    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.set_threshold(*before)


def test_objects_that_stay_are_searched_seldom(searches):
    stay = [Node() for _ in range(20_000)]
    by_default = len(searches)
    with rare_searches():
        stay += [Node() for _ in range(20_000)]

    assert by_default > 10
    assert len(searches) - by_default < by_default / 5


def test_garbage_does_not_pile_up(searches):
    with rare_searches():
        for _ in range(200_000):
            Node()

    assert len(searches) >= 3


def test_it_is_searched_as_before_afterwards(searches):
    with pytest.raises(KeyError), rare_searches():
        raise KeyError

    assert gc.get_threshold() == (700, 10, 10)


def test_who_turned_the_search_off_keeps_it_off(searches):
    gc.set_threshold(0)
    with rare_searches():
        assert gc.get_threshold()[0] == 0


def test_what_imports_make_is_never_searched(searches):
    try:
        with importing():
            stay = [Node() for _ in range(20_000)]
        during = len(searches)
        gc.collect()

        assert during == 0
        assert gc.isenabled()
        assert not {id(node) for node in stay} & {id(each) for each in gc.get_objects()}
    finally:
        gc.unfreeze()


def test_who_turned_the_search_off_keeps_it_off_after_imports():
    gc.disable()
    try:
        with importing():
            pass

        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_process_that_leaves_says_all_and_cleans_up_but_searches_nothing():
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True,
                          check=False)

    assert (done.returncode, done.stdout, done.stderr) == (3, "said, cleaned up\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_what_a_process_could_not_write_at_its_end_fails_it():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", LEAVES], stdout=full, stderr=subprocess.PIPE,
                              env=os.environ | {"PYTHONUNBUFFERED": ""}, text=True, check=False)

    assert done.returncode == 120  # of Python, for a flush that failed
    assert "No space left on device" in done.stderr
