"""The real command, its real steps and processes, killed: the next one goes on."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import reader
from tests.faults.walk import Walk
from tests.faults.watch import KILL

PROJECT = Path(__file__).parents[2]


def command(world):
    return [sys.executable, "-m", "doit", "download:resources", "download:vae_decoder",
            f"cache={world / 'cache'}", f"bundle={world / 'out' / 'mine'}"]


def watched(stage, decide):
    """The command in a new store."""
    shutil.rmtree(stage.world, ignore_errors=True)
    stage.world.mkdir()
    return stage.watcher.run(
        "execute", {"command": command(stage.world), "folder": str(PROJECT)}, decide)


def killed_at(stage, number):
    """Kills the command at one of its operations that change something; all its calls."""
    seen = []

    def decide(call):
        seen.extend([call] if call.changes else [])
        return KILL if call.changes and len(seen) == number else None

    return watched(stage, decide), len(seen)


def finish(stage):
    """The command undisturbed; the steps that it ran."""
    done = subprocess.run(command(stage.world), cwd=PROJECT, capture_output=True, text=True,
                          env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(". ")]


def test_a_step_has_no_open_file_of_its_build(stage):
    """Else its end, which is a moment later than that of a killed build, would end the locks."""
    seen, open_files = [], set()

    def decide(call):
        seen.append(call.pid)
        if not Path(f"/proc/{seen[0]}/task/{call.pid}").exists():  # no thread of the build itself
            open_files.update(map(os.path.realpath, Path(f"/proc/{call.pid}/fd").iterdir()))

    run = watched(stage, decide)

    assert run.status == 0, run.printed
    assert open_files
    assert [path for path in open_files if "/locks/" in path] == []


def test_a_killed_download_goes_on(stage, every, counted):
    run, operations = killed_at(stage, None)
    assert run.status == 0, run.printed
    expected = reader.read(stage.world / "cache")
    points = range(1, operations, operations // (16 if every == 1 else 4 if every else 2))

    reruns = 0
    for number in points:
        run, _ = killed_at(stage, number)
        assert run.status == -9
        found = reader.read(stage.world / "cache")
        assert found.wrong == ()

        ran = finish(stage)

        last = reader.read(stage.world / "cache")
        assert (last.made, last.wrong) == (expected.made, ())
        assert not any(name.startswith("work/") for name in last.left)
        assert len(ran) == len(expected.made) - len(found.whole)
        reruns += len(ran)
    counted.add("real", Walk(points=len(points), places=operations - 1, reruns=reruns))


@pytest.mark.parametrize("part, number", [
    ("vae/diffusion_pytorch_model.safetensors", errno.EACCES), ("vae", errno.EACCES),
    ("vae/config.json", errno.EIO)])
def test_a_checkpoint_that_cannot_be_read_is_reported(stage, part, number):
    shutil.rmtree(stage.world, ignore_errors=True)
    checkpoint = stage.world / "checkpoint"
    shutil.copytree(PROJECT / "recipes" / "tiny-emoji", checkpoint)
    words = [sys.executable, "-m", "doit", "download:vae_decoder",
             "model=tiny-emoji", f"source={checkpoint}", f"cache={stage.world / 'cache'}"]

    run = stage.watcher.run(
        "execute", {"command": words, "folder": str(PROJECT)},
        lambda call: (number if call.name == "read" and call.paths[0] == str(checkpoint / part)
                      else None))

    assert run.status == 1, run.printed
    assert f"ERROR: {checkpoint / part}: {os.strerror(number)}\n\nhint: " in run.printed
    assert "Traceback" not in run.printed
