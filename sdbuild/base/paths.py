"""The one check of paths from outside: the command line, the environment, recipes, settings."""

from __future__ import annotations

import os
from pathlib import Path

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown

LONGEST_NAME = 255
"""Bytes of a file's name that the file systems of Linux and macOS take."""


def check_path(text: str) -> str:
    """Returns the text, if a file or folder can have such a path.

    Raises:
        ValueError: none can; says what is expected.
    """
    if not text:
        raise ValueError("a path, which is not empty")
    if "\0" in text:
        raise ValueError("a path without the character NUL")
    try:
        longest = max(len(name) for name in text.encode().split(b"/"))
    except UnicodeEncodeError:
        raise ValueError("a path in UTF-8") from None
    if longest > LONGEST_NAME:
        raise ValueError(f"a path whose names have at most {LONGEST_NAME} bytes, not {longest}")
    return text


def outside_path(text: str | Path, what: str) -> Path:
    """Returns the path that a user gave as `what`, which may lead to nothing yet.

    Raises:
        RecipeError: no file can have it, or the system cannot look it up: links in a loop, a
            folder that may not be entered.
    """
    try:
        path = Path(check_path(str(text)))
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # its readers and writers check that it exists, and its kind
    except OSError as failed:
        raise RecipeError(f"{what} is {shown(path)}, which cannot be looked up: {failed.strerror}",
                          hint="use another path, or remove what is in the way") from failed
    except ValueError as failed:
        raise RecipeError(f"{what} is {shown(str(text))}, expected {failed}") from None
    return path


def real_path(path: Path) -> Path:
    """Returns the path without links; one that leads round in a loop stays. (`Path.resolve`
    raises.)"""
    return Path(os.path.realpath(path))


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that is too long, or a NUL in it, is none's."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
