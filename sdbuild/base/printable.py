"""Text from outside as a terminal may show it.

Names of files, records, cards, models and tensors come from anybody. Escape sequences in them move
the cursor, set a title, write to the clipboard or forge a link; marks of direction turn a name
round. What prints is wrapped at the two doors, `cli.main` and doit's tasks, so that no message has
to think of it. (JSON has its own escapes, and comes through as it is.)
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"                     # control characters, all but \t and \n
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"     # marks that change the direction of text
    "\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]"  # line ends, half characters, invisible tags
)


def printable(text: str) -> str:
    """Returns the text, with everything that would steer a terminal written as its escape.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def any_locale() -> None:
    """Lets the standard streams print what the locale has no characters for as its escape, where
    Python would end with a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Printable:
    """A stream that takes text for a terminal, and passes on what may be shown of it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text as `printable` gives it."""
        self._stream.write(printable(text))
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
