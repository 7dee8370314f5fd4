"""Reference data from runs of Apple's Swift package on Linux, `tests/fixtures/swift`."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "fixtures" / "swift"
PICTURES = FOLDER / "pictures"


def data(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def floats(bits):
    return np.array(bits, np.uint32).view(np.float32)


def psnr_db(a, b):
    error = np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)
