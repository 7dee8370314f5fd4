"""Locks: what the checkpoint of a recipe is, whatever place it comes from.

A recipe's table `[lock]` holds a digest for every file that `download` writes of each part, and the
commit of each repository that they came from. This is the only place that reads and writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import decoded_text, read_file, shown, toml_table
from sdbuild.store.disk import write_file

COMMITS = "commits"
"""The key of the commits, beside those of the parts."""

_COMMENT = (
    "# Digests of the checkpoint that download must produce, from any location. "
    "Written by `sdbuild lock`."
)
_HEADER = re.compile(r"\s*\[+\s*(?P<first>[^\].]*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_XXH3 = re.compile(r"[0-9a-f]{32}")
_HINT = "remove the table [lock] from the recipe and lock it again: sdbuild lock RECIPE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The SHA-256 of what download writes: `parts[step's component][file]`.

    `commits` holds the commit of each repository of the Hub, by its place in the recipe.
    """

    parts: Mapping[str, Mapping[str, str]]
    commits: Mapping[str, str]

    def pinned(self, places: Sequence[str]) -> tuple[str, ...]:
        """Returns the places, those of the Hub at the commits that were locked."""
        return tuple(
            f"{place.partition('@')[0]}@{self.commits[place]}" if place in self.commits else place
            for place in places
        )

    def of(self, part: str) -> Mapping[str, str]:
        """Returns the digests of a part.

        Raises:
            RecipeError: the lock has none.
        """
        if part not in self.parts:
            raise RecipeError(
                f"the recipe is locked, and its lock has no {part}",
                hint=f"lock it again with the component: sdbuild lock RECIPE "
                     f"components={part},…",
            )
        return self.parts[part]

    def changes(self, before: Lock) -> list[str]:
        """Returns what the lock before has otherwise, in words: parts, then repositories."""
        was, now = ({**lock.parts, **lock.commits} for lock in (before, self))
        return [f"{name} is new" if name not in was else
                f"{name} is gone" if name not in now else f"{name} changed"
                for name in dict.fromkeys((*now, *was)) if was.get(name) != now.get(name)]


def parsed(table: Mapping[str, Any], where: str) -> Lock | None:
    """Returns the lock in a recipe's table `[lock]`; None if it is empty.

    Raises:
        RecipeError: it is not what `text` writes.
    """
    for part, digests in table.items():
        if _are(_XXH3, digests):
            raise RecipeError(
                f"{where}: {part} has digests that can be forged, xxh3 of an older sdbuild; "
                "expected SHA-256", hint=_HINT
            )
        if not _are(_COMMIT if part == COMMITS else _SHA256, digests):
            raise RecipeError(
                f"{where}: {part} is {shown(digests)}, expected a digest for each file", hint=_HINT
            )
    if not table:
        return None
    return Lock(
        parts={part: digests for part, digests in table.items() if part != COMMITS},
        commits=table.get(COMMITS, {}),
    )


def _are(kind: re.Pattern[str], digests: object) -> bool:
    """Whether it is a table of digests of this kind, and not empty."""
    return isinstance(digests, dict) and bool(digests) and all(
        isinstance(digest, str) and kind.fullmatch(digest) for digest in digests.values()
    )


def text(lock: Lock) -> str:
    """Returns the lock as it stands in a recipe."""
    tables = {COMMITS: lock.commits, **lock.parts} if lock.commits else lock.parts
    blocks = [
        "\n".join([f"[lock.{_quoted(name)}]",
                   *(f'"{k}" = "{v}"' for k, v in sorted(table.items()))])
        for name, table in tables.items()
    ]
    return _COMMENT + "\n" + "\n\n".join(blocks) + "\n"


def _quoted(name: str) -> str:
    """Returns the name of a part as a key of TOML: those of ControlNets have a slash."""
    return f'"{name}"' if "/" in name else name


def written(recipe: str, lock: Lock) -> str:
    """Returns the text of a recipe with the lock at its end, in place of an older one.

    Everything else stays as it is, to the comment.

    Raises:
        RecipeError: it has a lock in a form that `text` does not write.
    """
    newline = "\r\n" if "\r\n" in recipe else "\n"
    kept = "".join(_without(recipe.splitlines(keepends=True))).rstrip()
    made = (kept + "\n\n" + text(lock)).replace("\r\n", "\n").replace("\n", newline)
    wanted = toml_table(recipe, "the recipe", RecipeError)
    wanted["lock"] = toml_table(text(lock), "the lock", RecipeError)["lock"]
    try:
        is_right = toml_table(made, "the recipe", RecipeError) == wanted
    except RecipeError:
        is_right = False
    if not is_right:
        raise RecipeError("its lock is in an unknown format", hint=_HINT)
    return made


def write(path: Path, lock: Lock) -> None:
    """Writes the lock into a recipe's file.

    Raises:
        RecipeError: it cannot be read or written, or holds a lock in another form.
    """
    made = written(decoded_text(read_file(path, RecipeError), str(path), RecipeError), lock)
    try:
        mode = path.stat().st_mode
        write_file(path, made.encode())
        path.chmod(mode)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error


def _without(lines: Sequence[str]) -> list[str]:
    """Returns the lines of a recipe without the tables of a lock; comments of others stay."""
    kept: list[str] = []
    is_lock = False
    for line in lines:
        header = _HEADER.match(line)
        if header:
            is_lock = header["first"].strip() == "lock"
        is_comment = line.lstrip().startswith("#")
        if line.strip() != _COMMENT and (not is_lock or is_comment):
            kept.append(line)
    return kept
