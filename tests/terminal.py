"""A terminal of 80 columns for what is tested: what is written to it, and what it shows in the end.
"""

import contextlib
import os
import pty
import re
import subprocess
import termios
import threading

COLUMNS = 80
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENVIRONMENT = {"TERM": "xterm-256color", "CI": "", "LC_ALL": "C.UTF-8"}


class Terminal:
    """A pseudo-terminal: `stream` is its end for programs, `written()` is what they wrote to it."""

    def __init__(self):
        self._main, end = pty.openpty()
        termios.tcsetwinsize(end, (24, COLUMNS))
        self.stream = os.fdopen(end, "w", encoding="utf-8")
        self._chunks = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # how Linux says that the other end has closed
            while chunk := os.read(self._main, 4096):
                self._chunks.append(chunk)

    def written(self):
        """All that was written; nothing can be written after it."""
        self.stream.close()
        self._reader.join()
        os.close(self._main)
        return b"".join(self._chunks).decode()


def run(command, **options):
    """Runs a command in a terminal; its exit status, and what it wrote."""
    terminal = Terminal()
    environment = os.environ | ENVIRONMENT | options.pop("env", {})
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal.stream,
                               stderr=terminal.stream, env=environment, **options)
    status = process.wait()
    return status, terminal.written()


def lines(written):
    """Every line that stood on the terminal at some time, without what steers it."""
    return [line for line in re.split(r"[\r\n]+", STEERING.sub("", written)) if line.strip()]


def shown(written):
    """The lines that a terminal shows in the end, where none is wider than it.

    Of what steers a terminal it knows what is used here: the start of the line, its deletion, and
    the line above.
    """
    screen, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif part == "\x1b[2K":
            screen[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
        elif not part.startswith(("\x1b", "\r")):
            screen[row] += part
    return [line for line in screen if line.strip()]
