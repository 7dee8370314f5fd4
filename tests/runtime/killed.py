"""Asks for 20 pictures in a process of its own, which is killed at a moment: at its K-th look at
the file system, or after a while. Prints what was reported of each run, and what lies there then.

    python -m tests.runtime.killed FOLDER
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from sdbuild.bundle.request import Request
from sdbuild.runtime import generate
from sdbuild.runtime.pipeline import Result
from tests.runtime.test_files import BUNDLE

COUNT = 20
TIMED = 12
EACH = 16
"""Looks that are all tried, those at two pictures; of later ones every seventh is."""
REQUEST = Request(prompt="a fox", negative="", seed=1, steps=1, guidance=1.0, scheduler="dpm",
                  count=COUNT)


class Drawn:
    """A pipeline whose networks take no time; all that follows them is the real one."""

    bundle, predictor, load_s = BUNDLE, "portable", 0.0
    prompts = SimpleNamespace(other_words=lambda request: ())

    def __init__(self, *words):
        pass

    def load(self, request):
        pass

    def batch(self, request):
        return 2

    def truncated_part(self, request, prompt):
        return ""

    def draw(self, request, *words):
        for number in range(request.count):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
            yield Result(image=Image.fromarray(pixels), is_flagged=None, seed=number, steps=1,
                         seconds={"denoise": 0.0})


def killed(folder, look=None, seconds=None):
    """Returns what a run reported before it was killed, and whether it ended by itself."""
    folder.mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        seen = 0

        def hook(event, words):
            nonlocal seen
            if event in ("open", "os.chmod", "os.rename", "os.remove") and any(
                    str(folder) in str(word) for word in words):
                seen += 1
                if seen == look:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            for path in generate.generate(BUNDLE, REQUEST, folder / "fox.png"):
                os.write(writing, f"{path.name}\n".encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as file:
        reported = file.read().split()
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WIFSIGNALED(status), "it failed by itself"
    return reported, status == 0


def main(folder):
    generate.Pipeline = Drawn
    list(generate.generate(BUNDLE, REQUEST, folder / "fox.png"))  # imports what it needs
    look, is_done = 1, False
    while not is_done:
        place = folder / f"look-{look}"
        reported, is_done = killed(place, look=look)
        print(json.dumps([str(place), reported]))
        look += 1 if look < EACH else 7
    moments = random.Random(4)
    for number in range(TIMED):
        place = folder / f"timed-{number}"
        reported, _ = killed(place, seconds=moments.uniform(0, 0.3))
        print(json.dumps([str(place), reported]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
