"""Flags as argparse reads them: `--flag=value`, beginnings of names, several values.

Settings of sdbuild's own stand before or after the flags, as `name=value`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.base.suggestions import did_you_mean

SWITCH, ONE, MANY = "switch", "one", "many"
_WORD = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a program: its names, the value of it if it is left out, what it does.

    `takes` is `SWITCH`, `ONE` value or `MANY`; `parse` makes a value of the text, and `choices` are
    all values, if there are only some.
    """

    name: str
    meaning: str
    takes: str = SWITCH
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[Any, ...] = ()
    is_required: bool = False
    short: str = ""

    @property
    def attribute(self) -> str:
        """The name of its value."""
        return self.name.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A command line that was read: the value of each flag, those that are there, and settings."""

    values: Mapping[str, Any]
    explicit: frozenset[str]
    words: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of Apple's package: the command of ours, its flags, the settings beside them."""

    command: str
    module: str
    flags: tuple[Flag, ...]
    settings: tuple[str, ...] = field(default=())

    def read(self, arguments: Sequence[str]) -> Given:
        """Returns what a command line says.

        Raises:
            RecipeError: a flag is unknown, has no value or one that is not allowed, or is missing.
        """
        inner, words = self._without_settings(list(arguments))
        parser = self._parser()
        found, rest = parser.parse_known_args(inner)
        if rest:
            raise self._unknown(rest)
        given = vars(found)
        explicit = frozenset(name for name, value in given.items() if value is not None)
        for flag in self.flags:
            if flag.is_required and flag.attribute not in explicit:
                raise RecipeError(f"{flag.name} is missing, expected {flag.meaning}",
                                  hint=self.hint)
        values = {flag.attribute: flag.default if given[flag.attribute] is None
                  else given[flag.attribute] for flag in self.flags}
        return Given(values=values, explicit=explicit, words=words)

    def help(self) -> str:
        """Returns the help text, of at most 80 columns."""
        rows = [(_usage(flag), flag.meaning + _default(flag)) for flag in self.flags]
        lines = [f"Usage: sdbuild {self.command} [NAME=VALUE]... FLAGS", "",
                 "  The flags of python -m", f"  {self.module};",
                 "  docs/from-apple.md has what is done for each.", ""]
        for usage, meaning in rows:
            lines += [f"  {usage}", *(f"      {line}" for line in _wrapped(meaning))]
        if self.settings:
            lines += ["", "  Settings of sdbuild, before the flags:",
                      *(f"      {line}" for line in _wrapped(", ".join(
                          f"{name}=" for name in self.settings)))]
        return "\n".join(lines)

    @property
    def hint(self) -> str:
        """The hint of errors."""
        return f"sdbuild {self.command} --help lists the flags"

    def _without_settings(self, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
        """Returns the flags, and the settings that stand before and behind them."""
        words: dict[str, str] = {}
        start, end = 0, len(arguments)
        while start < end and self._is_setting(arguments[start]):
            start += 1
        while end > start and self._is_setting(arguments[end - 1]) \
                and not self._takes_next(arguments[end - 2]):
            end -= 1
        for word in (*arguments[:start], *arguments[end:]):
            name, _, value = word.partition("=")
            if name in words:
                raise RecipeError(f"{name}= is given twice", hint="leave one of them away")
            words[name] = value
        return arguments[start:end], words

    def _is_setting(self, argument: str) -> bool:
        found = _WORD.fullmatch(argument)
        return found is not None and found[1] in self.settings

    def _takes_next(self, argument: str) -> bool:
        """Whether the argument is a flag, as far as it is written, whose value follows."""
        return any((flag.takes == ONE and argument in (flag.name, flag.short)) or (
            flag.takes == ONE and len(argument) > 2 and argument.startswith("--")
            and flag.name.startswith(argument)) for flag in self.flags)

    def _parser(self) -> argparse.ArgumentParser:
        parser = _Parser(prog=f"sdbuild {self.command}", add_help=False, exit_on_error=False)
        parser.hint = self.hint
        for flag in self.flags:
            names = (flag.short, flag.name) if flag.short else (flag.name,)
            if flag.takes == SWITCH:
                parser.add_argument(*names, action="store_const", const=True, default=None)
            else:
                parser.add_argument(
                    *names, nargs="*" if flag.takes == MANY else None, type=flag.parse,
                    choices=flag.choices or None, default=None)
        return parser

    def _unknown(self, rest: Sequence[str]) -> RecipeError:
        """Returns the error of what is no flag; a word may be one without its dashes."""
        word = next((each for each in rest if each.startswith("-")), rest[0])
        name = word.partition("=")[0]
        known = [flag.name for flag in self.flags]
        if not word.startswith("-") and f"--{name}" in known:
            return RecipeError(f"{shown(word)}: not a flag; did you mean \"--{name}\"?",
                               hint=self.hint)
        if self._is_setting(word):
            return RecipeError(f"{shown(word)}: a setting between flags",
                               hint="settings stand before all flags, or after them")
        if _WORD.fullmatch(word) and not word.startswith("-"):
            return RecipeError(
                f"{shown(word)}: not a setting of this command"
                f"{did_you_mean(name, self.settings)}",
                hint=f"its settings are: {', '.join(self.settings)}" if self.settings
                else self.hint)
        return RecipeError(f"unknown flag {shown(word)}{did_you_mean(name, known)}",
                           hint=self.hint)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    hint = ""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse found."""
        raise RecipeError(message.removeprefix("argument "), hint=self.hint)

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Returns what it read, and the rest."""
        try:
            return super().parse_known_args(*args, **options)
        except argparse.ArgumentError as error:
            raise RecipeError(str(error).removeprefix("argument "), hint=self.hint) from None


def integer(text: str) -> int:
    """Returns a whole number, which is not too long to be one.

    Raises:
        ValueError: it is none.
    """
    if len(text) > 20:
        raise ValueError(text)
    return int(text)


def _usage(flag: Flag) -> str:
    names = f"{flag.short}, {flag.name}" if flag.short else flag.name
    metavar = {SWITCH: "", ONE: " VALUE", MANY: " VALUE..."}[flag.takes]
    return names + metavar


_LONGEST_DEFAULT = 60
"""Addresses of files are longer, and do not fit into a line."""


def _default(flag: Flag) -> str:
    choices = f": {', '.join(map(str, flag.choices))}" if flag.choices else ""
    is_shown = flag.default not in (None, False) and len(str(flag.default)) < _LONGEST_DEFAULT
    default = f"  [default: {flag.default}]" if is_shown else ""
    return choices + default


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 72, break_on_hyphens=False, break_long_words=False)
