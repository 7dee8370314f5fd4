"""The table of `docs/faults.md`, written from the numbers of real walks."""

import platform
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- written by pytest tests/faults --accept -->\n", "<!-- until here -->\n"

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

    @property
    def is_complete(self):
        """Whether every fault was tried."""
        return self._rows.keys() == FAULTS.keys()

    def write(self):
        """Writes the table into the page."""
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        *_, tail = rest.partition(END)
        rows = [self._row(FAULTS[name], self._rows[name]) for name in FAULTS]
        every = tuple(map(sum, zip(*self._rows.values(), strict=True)))
        table = ["| fault | points | told as an error | steps that ran again | lost |",
                 "| --- | ---: | ---: | ---: | ---: |", *rows, self._row("in all", every)]
        note = f"Linux on {platform.machine()}, Python {platform.python_version()}."
        lines = "\n".join([*table, "", note])
        PAGE.write_text(f"{head}{BEGIN}{lines}\n{END}{tail}", "utf-8")

    def _row(self, name, numbers):
        *some, lost = (f"{number:,}" for number in numbers)
        return f"| {name} | {' | '.join(some)} | {'nothing' if lost == '0' else lost} |"
