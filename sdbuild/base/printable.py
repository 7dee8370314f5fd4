"""Text from outside as a terminal may show it.

Names of files, records, cards, models and tensors come from anybody. Escape sequences in them move
the cursor, set a title, write to the clipboard or forge a link; marks of direction turn a name
round. What prints is wrapped at the two doors, `cli.main` and doit's tasks, so that no message has
to think of it. (JSON has its own escapes, and comes through as it is.)

A terminal breaks lines that are wider than it in the middle of words; there they are broken at
spaces. What is read by programs is as it is.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"                     # control characters, all but \t and \n
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"     # marks that change the direction of text
    "\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]"  # line ends, half characters, invisible tags
)


_KEPT = re.compile(r"\s*(next: )?(\$ )?(sdbuild|doit|hf|dask|pip) |\s+'?[a-z_]+=|\s*[\"{}\[\]]")
"""The beginning of a line that is copied: a command, its words, JSON."""
_FIRST_CELL = re.compile(r"\s*\S+( \S+)*\s{2,}(?=\S)")


def printable(text: str) -> str:
    """Returns the text, with everything that would steer a terminal written as its escape.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def fitted(text: str, columns: int) -> str:
    """Returns the text with its wide lines broken at spaces, under the second column of a table or
    the start of the line. Commands and JSON stay as they are, to be copied.

    >>> print(fitted("unet    would run: another checkpoint", 24))
    unet    would run:
            another
            checkpoint
    """
    return "\n".join(line if len(line) <= columns or _KEPT.match(line)
                     else _broken(line, columns) for line in text.split("\n"))


def _broken(line: str, columns: int) -> str:
    cell = _FIRST_CELL.match(line)
    start = len(line) - len(line.lstrip())
    indent = cell.end() if cell and cell.end() <= columns // 2 else start and start + 2
    return textwrap.fill(line, columns, subsequent_indent=" " * indent, break_long_words=False,
                         break_on_hyphens=False)


def any_locale() -> None:
    """Lets the standard streams print what the locale has no characters for as its escape, where
    Python would end with a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Printable:
    """A stream that takes text for a terminal, and passes on what may be shown of it, in lines that
    fit."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text as `printable` gives it, to a terminal as `fitted` does."""
        shown = printable(text)
        if getattr(self._stream, "isatty", bool)():
            shown = fitted(shown, shutil.get_terminal_size().columns)
        self._stream.write(shown)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes each as `write` does."""
        for line in lines:
            self.write(line)


def unwrapped(stream: Any) -> Any:
    """Returns the stream itself, for what steers a terminal on purpose."""
    while isinstance(stream, Printable):
        stream = stream._stream
    return stream


@contextlib.contextmanager
def printed_safely() -> Iterator[None]:
    """Lets whatever is printed meanwhile go through `Printable`."""
    with (contextlib.redirect_stdout(Printable(sys.stdout)),
          contextlib.redirect_stderr(Printable(sys.stderr))):
        yield
