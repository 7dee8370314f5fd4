"""A request that is killed at any moment loses no picture that it reported."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.pages import ROOT
from tests.runtime.killed import COUNT, TIMED


def test_a_kill_at_any_moment_of_twenty_pictures_loses_none_that_was_reported(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tests.runtime.killed", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    runs = [json.loads(line) for line in done.stdout.splitlines()]

    names = [f"fox-{number}.png" for number in range(1, COUNT + 1)]
    for place, reported in runs:
        assert reported == [*names, "fox.png"][:len(reported)]
        whole = sorted(path.name for path in Path(place).iterdir() if path.name[0] != ".")
        assert set(reported) <= set(whole)
        assert len(whole) - len(reported) <= 1  # one may be written and not reported yet
        for name in whole:
            with Image.open(Path(place, name)) as image:
                image.load()
                assert image.text["prompt"] == "a fox"
    looks = len(runs) - TIMED
    assert looks > COUNT and len(runs[looks - 1][1]) == COUNT + 1
