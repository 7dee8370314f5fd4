"""The one door for JSON and TOML from outside: files, downloads, shared stores, headers.

Whatever comes in is hostile until it is parsed: limits on size, nesting and numbers are the same
for every format and every Python, and each refusal is one error of the caller's class that says
where, what was found and what was expected. `Fields` takes values out of an object by their types.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SDBuildError

LARGEST_BYTES = 4 << 20
"""Configs, indexes and manifests are kilobytes; vocabularies, the largest files, have a megabyte.
Parsed, hostile JSON takes up to 25 times its size in memory."""

DEEPEST = 64
"""The deepest nesting; real files have fewer than ten levels."""

_LARGEST_INTEGER = 1 << 64
"""Exclusive. TOML demands 64 bits, safetensors has u64, and no format here has more."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REQUIRED: Any = object()
_AGAIN = "download it again, logged in if its page requires it"
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself",
     "run `git lfs pull` in its repository, or download the file from its page"),
    (b"<", "a web page or XML", _AGAIN),
    (b"Entry not found", "the Hub's answer that there is no such file", _AGAIN),
    (b"Access to model", "the Hub's answer that access must be granted first", _AGAIN),
    (b"Invalid username or password", "the Hub's answer to a wrong token", _AGAIN),
    (b"\x1f\x8b", "compressed with gzip", "decompress it first: gzip -d"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)

Error = Callable[..., Exception]
"""Makes the caller's error from a message and a `hint`; usually a class of `SDBuildError`."""


class Malformed(ValueError):
    """The error for readers that go on without what cannot be read; its hint is left out."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)


def looks_like(content: bytes) -> tuple[str, str]:
    """Returns what a file that cannot be parsed seems to be instead, and a hint; empty if unknown.

    Args:
        content: the file, or at least its first 64 bytes.
    """
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "an empty file", _AGAIN
    for beginning, what, hint in _BEGINNINGS:
        if start.startswith(beginning):
            return what, hint
    if not start.strip(b"\0"):
        return "zeros, as an interrupted copy leaves", _AGAIN
    return "", ""


TRY_AGAIN = "see that it can be read, then try again"


def read_file(
    path: Path, error: Error = SDBuildError, *, most_bytes: int = LARGEST_BYTES
) -> bytes:
    """Returns the bytes of a regular file of at most `most_bytes`.

    Raises:
        error: it is missing, unreadable, too large, or no regular file (a folder, a pipe, a link
            that leads to itself).
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{shown(path)}: not a file")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError as lost:
        raise error(f"{shown(path)}: no such file") from lost
    except (OSError, ValueError) as failed:  # ValueError: a NUL or a lone surrogate in its name
        reason = getattr(failed, "strerror", None) or failed
        raise error(f"{shown(path)}: cannot be read: {reason}", hint=TRY_AGAIN) from failed
    if len(content) > most_bytes:
        raise error(f"{shown(path)}: {max(found.st_size, len(content))} bytes, "
                    f"expected at most {most_bytes}")
    return content


def decoded_text(content: bytes, where: str, error: Error = SDBuildError) -> str:
    """Returns the text of a file in UTF-8; a byte order mark is ignored.

    Raises:
        error: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as failed:
        what, hint = looks_like(content)
        raise error(
            f"{where}: not UTF-8 at byte {failed.start}" + (f": {what}" if what else ""),
            hint=hint or "save it as UTF-8",
        ) from failed


def json_value(
    content: bytes | str, where: str, error: Error = SDBuildError, *,
    most_bytes: int = LARGEST_BYTES, has_infinities: bool = False, has_controls: bool = False,
) -> Any:
    """Returns the value of a JSON document.

    Args:
        has_infinities: Infinity and NaN, which JSON has not, are allowed.
        has_controls: control characters are allowed in texts, as vocabularies may have them.

    Raises:
        error: it is not JSON in UTF-8, names a field twice, or is beyond a limit.
    """
    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
            raise error(f"{where}: the field {shown(twice)} is there twice", hint="remove one")
        return found

    text = _text(content, where, error, most_bytes)
    try:
        found = json.loads(text, object_pairs_hook=fields)
    except json.JSONDecodeError as failed:
        what, hint = looks_like(text[:64].encode("utf-8", "replace"))
        said = what or f"{failed.msg} at line {failed.lineno}, column {failed.colno}"
        is_cut = failed.pos >= len(text.rstrip()) or failed.msg.startswith("Unterminated")
        raise error(f"{where}: not JSON: {said}",
                    hint=hint or ("it may be cut short: " + _AGAIN if is_cut else "")) from failed
    except (ValueError, RecursionError) as failed:
        raise _beyond(failed, where, error) from failed
    _check(found, where, error, has_infinities, has_controls)
    return found


def json_object(
    content: bytes | str, where: str, error: Error = SDBuildError, **limits: Any
) -> dict[str, Any]:
    """Returns the fields of a JSON document that is an object; `limits` are those of `json_value`.

    Raises:
        error: it is not, or is not sound JSON.
    """
    found = json_value(content, where, error, **limits)
    if not isinstance(found, dict):
        raise error(f"{where}: {kind(found)}, expected a JSON object")
    return found


def json_file(path: Path, error: Error = SDBuildError, **limits: Any) -> dict[str, Any]:
    """Returns the fields of the JSON object in a file; `limits` are those of `json_value`.

    Raises:
        error: the file cannot be read, or is none.
    """
    most_bytes = limits.get("most_bytes", LARGEST_BYTES)
    return json_object(read_file(path, error, most_bytes=most_bytes), shown(path), error, **limits)


def toml_table(
    content: bytes | str, where: str, error: Error = SDBuildError, *, most_bytes: int = 64 << 10
) -> dict[str, Any]:
    """Returns the table of a TOML document, without dates, infinities and control characters.

    Raises:
        error: it is not TOML in UTF-8, or is beyond a limit.
    """
    text = _text(content, where, error, most_bytes)
    for number, line in enumerate(text.split("\n"), 1):
        # tomllib takes time that grows with the square of the parts of a dotted key
        if any(key.count(".") > DEEPEST for key in line.split("=")[:-1]):
            raise error(f"{where}: a key of more than {DEEPEST} parts at line {number}")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failed:
        what, hint = looks_like(text[:64].encode("utf-8", "replace"))
        raise error(f"{where}: not TOML: {what or failed}", hint=hint) from failed
    except (ValueError, RecursionError) as failed:
        raise _beyond(failed, where, error) from failed
    _check(found, where, error, has_infinities=False, has_controls=False)
    return found


def _text(content: bytes | str, where: str, error: Error, most_bytes: int) -> str:
    if len(content) > most_bytes:
        raise error(f"{where}: {len(content)} bytes, expected at most {most_bytes}")
    return content if isinstance(content, str) else decoded_text(content, where, error)


def _beyond(failed: Exception, where: str, error: Error) -> Exception:
    """Returns the error for what the parsers of Python give up at, each in its own way."""
    if isinstance(failed, RecursionError):
        return error(f"{where}: nested more than {DEEPEST} levels deep")
    return error(f"{where}: a number with too many digits")


def _check(
    found: Any, where: str, error: Error, has_infinities: bool, has_controls: bool
) -> None:
    """Refuses nesting, numbers and texts that no honest file has."""
    unwanted = _SURROGATE if has_controls else _UNPRINTABLE
    level, depth = [found], 0
    while level:
        if depth > DEEPEST:
            raise error(f"{where}: nested more than {DEEPEST} levels deep")
        # texts and integers as a whole: a vocabulary has 50,000
        texts = [value for value in level if isinstance(value, str)]
        if unwanted.search("".join(texts)):
            for text in texts:
                _check_text(text, where, error, unwanted)
        numbers = [value for value in level if type(value) is int]
        for number in (min(numbers, default=0), max(numbers, default=0)):
            _check_scalar(number, where, error, has_infinities)
        rest = [value for value in level if type(value) not in (str, int)]
        for value in rest:
            if isinstance(value, dict):
                if float in set(map(type, value.values())):
                    _check_named(value, where, error, has_infinities)
            elif not isinstance(value, list):
                _check_scalar(value, where, error, has_infinities)
        level = [part for value in rest for part in _inner(value)]
        depth += 1


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return chain(value, value.values())
    return value if isinstance(value, list) else ()


def _check_named(
    fields: Mapping[str, Any], where: str, error: Error, has_infinities: bool
) -> None:
    """Checks the numbers that have a name, before they lose it."""
    for name, value in fields.items():
        if isinstance(value, float):
            _check_scalar(value, f"{where}: {shown(name)}", error, has_infinities)


def _check_scalar(value: Any, where: str, error: Error, has_infinities: bool) -> None:
    if isinstance(value, float):
        if not has_infinities and not math.isfinite(value):
            raise error(f"{where}: {value}, expected finite numbers")
    elif isinstance(value, int):
        if not -_LARGEST_INTEGER < value < _LARGEST_INTEGER:
            raise error(f"{where}: a number with too many digits, expected 64 bits")
    elif value is not None:
        raise error(f"{where}: a {type(value).__name__}, expected text, numbers, true or false")


def _check_text(text: str, where: str, error: Error, unwanted: re.Pattern[str]) -> None:
    if found := unwanted.search(text):
        what = "half a surrogate pair" if _SURROGATE.match(found[0]) else "a control character"
        raise error(f"{where}: {what}, {found[0]!a}, in {shown(text)}")


def kind(value: object) -> str:
    """Returns the type of a value, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false",
             int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """Returns a value as a message can show it: short, and with nothing that steers a terminal.

    Paths and texts that are printable and short are shown as they are.
    """
    text = str(value) if isinstance(value, Path) else value
    if isinstance(text, str) and isinstance(value, Path) and text.isprintable():
        return text if len(text) <= 300 else f"{text[:297]}…"
    if isinstance(text, dict | list):
        return kind(text)
    said = repr(text[:61] if isinstance(text, str) else text)
    return said if len(said) <= 64 else f"{said[:60]}…"


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an object from outside, each taken by its type.

    `where` begins the message of each error, of the class `error`, which names the field. A field
    without a `default` must be there; null counts as missing.

    >>> Fields({"steps": 20}, "config.json").integer("steps", low=1, high=100)
    20
    """

    values: Mapping[str, Any]
    where: str
    error: Error = SDBuildError

    def integer(
        self, name: str, *, low: int = 0, high: int = (1 << 53), default: Any = _REQUIRED
    ) -> int:
        """Returns an integer from `low` to `high`, inclusive; 2.0 is none."""
        return self._get(name, default, f"an integer from {low} to {high}",
                         lambda found: type(found) is int and low <= found <= high)

    def number(
        self, name: str, *, low: float = -math.inf, high: float = math.inf,
        default: Any = _REQUIRED,
    ) -> float:
        """Returns a number from `low` to `high`, inclusive."""
        span = "" if low == -math.inf and high == math.inf else f" from {low:g} to {high:g}"
        return self._get(name, default, f"a number{span}",
                         lambda found: type(found) in (int, float) and low <= found <= high)

    def flag(self, name: str, *, default: Any = _REQUIRED) -> bool:
        """True or false."""
        return self._get(name, default, "true or false", lambda found: type(found) is bool)

    def text(self, name: str, *, default: Any = _REQUIRED) -> str:
        """Returns a text that is not empty."""
        return self._get(name, default, "text",
                         lambda found: isinstance(found, str) and found != "")

    def choice(self, name: str, known: tuple[str, ...], *, default: Any = _REQUIRED) -> str:
        """Returns one of the `known` texts."""
        return self._get(name, default, f"one of {', '.join(known)}",
                         lambda found: isinstance(found, str) and found in known)

    def listed(self, name: str, *items: type, default: Any = _REQUIRED) -> list[Any]:
        """Returns a list of values of these types."""
        return self._get(name, default,
                         f"a list of {' or '.join(item.__name__ for item in items)}",
                         lambda found: isinstance(found, list)
                         and all(type(part) in items for part in found))

    def fields(self, name: str, *, default: Any = _REQUIRED) -> Fields:
        """Returns an object, whose errors name the way to it."""
        found = self._get(name, default, "an object", lambda found: isinstance(found, dict))
        return Fields(found, f"{self.where}: {name}", self.error)

    def _get(
        self, name: str, default: Any, expected: str, is_sound: Callable[[Any], bool]
    ) -> Any:
        found = self.values.get(name)
        if found is None and default is not _REQUIRED:
            return default
        if found is None:
            raise self.error(f"{self.where}: {name} is missing, expected {expected}")
        if not is_sound(found):
            raise self.error(f"{self.where}: {name} is {shown(found)}, expected {expected}")
        return found
