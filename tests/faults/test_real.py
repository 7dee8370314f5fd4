"""The real command, its real steps and processes, killed: the next one goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import reader
from walk import Walk
from watch import KILL

PROJECT = Path(__file__).parents[2]


def command(world):
    return [sys.executable, "-m", "doit", "download:resources", "download:vae_decoder",
            f"cache={world / 'cache'}", f"bundle={world / 'out' / 'mine'}"]


def killed_at(stage, number):
    """Kills the command at one of its operations that change something; all its calls."""
    seen = []

    def decide(call):
        seen.extend([call] if call.changes else [])
        return KILL if call.changes and len(seen) == number else None

    shutil.rmtree(stage.world, ignore_errors=True)
    stage.world.mkdir()
    run = stage.watcher.run(
        "execute", {"command": command(stage.world), "folder": str(PROJECT), "env": {}}, decide)
    return run, len(seen)


def finish(stage):
    """The command undisturbed; the steps that it ran."""
    done = subprocess.run(command(stage.world), cwd=PROJECT, capture_output=True, text=True,
                          env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(". ")]


@pytest.mark.slow
def test_a_killed_download_goes_on(stage, every, counted):
    run, operations = killed_at(stage, None)
    assert run.status == 0, run.printed
    expected = reader.read(stage.world / "cache")
    points = range(1, operations, operations // (16 if every == 1 else 4))

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
