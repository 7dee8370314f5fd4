"""Real file systems with too little room, too few inodes, or that cannot be written to."""

import contextlib
import os
import subprocess
import sys

import pytest

from tests.faults import reader
from tests.faults.scenes import BUILD, SCENES
from tests.faults.walk import Walk

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs root, to mount")
SCENE = SCENES["a first build"]


@contextlib.contextmanager
def mounted(folder, options):
    """A file system in memory, of so much room; nothing of it stays."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "sdbuild-test", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def build_in(stage, options, more):
    """Builds where there is too little room, and again where there is enough.

    The first one's error, or nothing, and how many steps the second ran.
    """
    expected = stage.undisturbed(SCENE)
    stage.reset(SCENE)
    cache = stage.world / "cache"
    with mounted(cache, options):
        run = stage.run(BUILD)
        found = stage.look()
        assert found.store.wrong == ()
        assert found.bundle in (None, expected.done.bundle)
        assert "Traceback" not in run.printed
        stage.ran()
        remount(cache, more)

        assert stage.run(BUILD).result == {}

        ran, last = stage.ran(), stage.look()
        assert not found.store.whole & set(ran)
        assert (last.bundle, last.store.wrong) == (expected.done.bundle, ())
        assert last.beside == expected.start.beside
        assert last.store.made == expected.done.store.made
    return run.result, len(ran)


def test_a_disk_that_is_full_says_so_and_with_room_the_build_goes_on(stage):
    result, ran = build_in(stage, "size=48k", "size=64m")

    assert "No space left on device" in result["error"]
    assert "sdbuild gc" in result["hint"]
    assert ran


def test_nothing_is_lost_however_little_room_there_is(stage, every, counted):
    rooms = [*((f"size={pages * 4}k", "size=64m") for pages in range(1, 60, 2)),
             *((f"size=64m,nr_inodes={inodes}", "nr_inodes=100k") for inodes in range(2, 90, 3))]

    results = [build_in(stage, *room) for room in rooms[::every or 12]]

    errors = [result for result, _ in results if result]
    assert 0 < len(errors) < len(results)
    assert [e for e in errors
            if "No space left on device" not in e["error"] or "gc" not in f"{e}"] == []
    counted.add("room", Walk(points=len(results), places=len(rooms), errors=len(errors),
                             reruns=sum(ran for _, ran in results)))


def test_what_is_read_only_cannot_take_a_build_and_gives_what_it_holds(stage):
    stage.reset(SCENE)
    cache = stage.world / "cache"
    with mounted(cache, "size=64m,ro"):
        result = stage.run(BUILD).result
        assert "Read-only file system" in result["error"]
        assert "cache=PATH" in result["hint"]
        remount(cache, "rw")
        assert stage.run(BUILD).result == {}
        remount(cache, "ro")

        assert stage.run(("build", {"place": "second"})).result == {}

        out = stage.world / "out"
        assert reader.tree(out / "second") == reader.tree(out / "mine")
