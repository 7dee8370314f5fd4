"""The table of `docs/faults.md`, written from the numbers of real walks."""

import platform
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- written by pytest tests/faults --accept -->\n", "<!-- until here -->\n"

HEAD = """| fault | points | told as an error | steps that ran again | lost |
| --- | ---: | ---: | ---: | ---: |"""
FAULTS = {
    "killed": "SIGKILL before each operation, and in the middle of each write",
    "failed": "each kind of operation on each kind of file fails, in each way that it may",
    "filled": "the disk is full, from each operation on",
    "links": "the power fails; bundles share the store's files",
    "copies": "the power fails; bundles are copies",
    "together": "six builds at once, about half of them killed",
    "real": "SIGKILL in `doit download:resources` of the built-in model",
    "room": "file systems with too little room, or too few inodes",
}
"""Every fault that is tried, in the words of the page."""


class Tally:
    """How often each fault was tried and what was lost."""

    def __init__(self):
        self._rows = {}

    def add(self, fault, points, told, reruns, lost):
        """Adds what one test found of a fault."""
        before = self._rows.get(fault, (0, 0, 0, 0))
        self._rows[fault] = tuple(map(sum, zip(before, (points, told, reruns, lost), strict=True)))

    def write(self):
        """Writes the rows of what was tried into the page's table; others stay as they were."""
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        before, _, tail = rest.partition(END)
        lines = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines()}
        for name, numbers in self._rows.items():
            lines[FAULTS[name]] = _row(FAULTS[name], numbers)
        rows = [lines[name] for name in FAULTS.values() if name in lines]
        note = f"Linux on {platform.machine()}, Python {platform.python_version()}."
        table = "\n".join([HEAD, *rows, "", note])
        PAGE.write_text(f"{head}{BEGIN}{table}\n{END}{tail}", "utf-8")


def _row(name, numbers):
    *some, lost = (f"{number:,}" for number in numbers)
    return f"| {name} | {' | '.join(some)} | {'nothing' if lost == '0' else lost} |"
