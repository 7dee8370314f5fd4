"""The tokens of MIL text, and the lists that they make up."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from sdbuild.base.errors import InvalidProgram

_TOKEN = re.compile(
    r'\s*(->|[A-Za-z_][A-Za-z0-9_]*|"[^"\\\n]*"|\.\.\.'
    r"|-?[0-9][0-9A-Za-z.+-]*|-inf|-nan|[()\[\]{}<>=,;?]|\Z)"
)
LONGEST_QUOTE = 40
"""Characters of a token that messages tell."""

Item = TypeVar("Item")


class Tokens:
    """The tokens of a text, one at a time; `token` is the one ahead."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.token = ""
        self.start = self.end = 0
        self.advance()

    def advance(self) -> None:
        """Goes to the next token."""
        found = _TOKEN.match(self.text, self.end)
        if found is None:
            self.token = self.text[self.end:].lstrip()
            self.start = len(self.text) - len(self.token)
            raise self.error("a token of MIL text")
        self.token, (self.start, self.end) = found[1], found.span(1)

    def error(self, expected: str) -> InvalidProgram:
        """Returns the error that something else was expected here."""
        line = self.text.count("\n", 0, self.start) + 1
        column = self.start - self.text.rfind("\n", 0, self.start)
        found = repr(self.token[:LONGEST_QUOTE]) if self.token else "the end of the text"
        return InvalidProgram(
            f"{self.source}: line {line}, column {column}: found {found}, expected {expected}",
            line=line, column=column,
        )

    def next(self) -> str:
        """Returns the token ahead, which is then behind."""
        token = self.token
        self.advance()
        return token

    def expect(self, token: str) -> None:
        """Takes `token`, or raises."""
        if self.token != token:
            raise self.error(repr(token))
        self.advance()

    def identifier(self, what: str) -> str:
        """Takes a name; `what` says of what in the error."""
        if not (self.token[:1].isalpha() or self.token[:1] == "_"):
            raise self.error(what)
        return self.next()

    def string(self) -> str:
        """Takes a string; what is between its quotes."""
        if self.token[:1] != '"':
            raise self.error("a string")
        return self.next()[1:-1]

    def items(self, read: Callable[[], Item], close: str) -> list[Item]:
        """Returns what `read` reads, between commas, up to and with `close`."""
        found: list[Item] = []
        while self.token != close:
            if found:
                self.expect(",")
            found.append(read())
        self.advance()
        return found

    def keyed(self, read: Callable[[], Item], close: str) -> dict[str, Item]:
        """Items `name = …`, up to and with `close`."""
        found: dict[str, Item] = {}

        def item() -> None:
            if self.token in found:
                raise self.error("a name that is not used before")
            name = self.identifier("a name")
            self.expect("=")
            found[name] = read()

        self.items(item, close)
        return found
