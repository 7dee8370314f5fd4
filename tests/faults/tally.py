"""The table of `docs/faults.md`, written from the numbers of real walks."""

import platform
from collections import defaultdict
from pathlib import Path

from tests.faults.scenes import SCENES
from tests.faults.walk import Walk

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- written by pytest tests/faults --accept -->\n", "<!-- until here -->\n"

HEAD = """| fault | points | reported as an error | steps that ran again | lost |
| --- | ---: | ---: | ---: | ---: |"""
FAULTS = {
    "killed": "SIGKILL before each operation, and in the middle of each write",
    "failed": "each kind of operation on each kind of file fails, in each way that it may",
    "filled": "the disk is full, from each operation on",
    "links": "the power fails; bundles share the store's files",
    "copies": "the power fails; bundles are copies",
    "together": "twelve rounds of six builds at once, some of them killed",
    "real": "SIGKILL in `doit download:resources` of the built-in model",
    "room": "file systems with too little room, or too few inodes",
}
"""Every fault that is tried, in the words of the page."""
IN_SCENES = ("killed", "failed", "filled", "links", "copies")


class Tally:
    """Counts of the faults tried and of the losses."""

    def __init__(self):
        self._found = defaultdict(list)

    def add(self, fault, found):
        """Adds the walk of one test."""
        self._found[fault].append(found)

    def write(self):
        """Writes the rows of what was tried to its end into the page's table; others stay."""
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        before, _, tail = rest.partition(END)
        lines = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines()}
        for name, found in self._found.items():
            if len(found) == (len(SCENES) if name in IN_SCENES else 1):
                lines[FAULTS[name]] = _row(FAULTS[name], sum(found, start=Walk()))
        rows = [lines[name] for name in FAULTS.values() if name in lines]
        note = f"Linux on {platform.machine()}, Python {platform.python_version()}."
        table = "\n".join([HEAD, *rows, "", note])
        PAGE.write_text(f"{head}{BEGIN}{table}\n{END}{tail}", "utf-8")


def _row(name, found):
    points = f"{found.points:,}"
    if found.points < found.places:
        points += f" of {found.places:,}"
    lost = len(found.wrong) or "nothing"
    return f"| {name} | {points} | {found.errors:,} | {found.reruns:,} | {lost} |"
