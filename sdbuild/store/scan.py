"""Listings of folders, complete or an error.

`Path.glob` skips folders that cannot be read just now: an artifact would lack files, and a
collector would not see what bundles hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sdbuild.base.errors import StoreError
from sdbuild.base.filenames import collision, contents
from sdbuild.store.disk import file_error


def entries(folder: Path) -> list[Path]:
    """Returns the files and folders in a folder, in order; none if it is not there.

    What macOS adds to folders is left out (`base/filenames.py`).

    Raises:
        StoreError: it cannot be listed now, which says nothing of it.
    """
    try:
        return contents(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise file_error(error, folder) from error


def filed(folder: Path) -> Iterator[Path]:
    """Yields what lies in the folders `<2>` of a folder of the store, in no order. Links to folders
    are left out: what they lead to is not the store's, and would be collected with it.

    Raises:
        StoreError: one cannot be listed now.
    """
    for inner in entries(folder):
        if len(inner.name) == 2 and not inner.is_symlink():
            yield from entries(inner)


def files(folder: Path) -> list[Path]:
    """Returns the files below a folder, in the order of their paths.

    Raises:
        StoreError: it or a folder below it cannot be listed now.
    """
    found: list[Path] = []
    for path in entries(folder):
        if not path.is_dir():
            found.append(path)
        elif not path.is_symlink():
            found += files(path)
    return sorted(found)


def refuse_collision(step: str, paths: Sequence[str]) -> None:
    """Makes sure that the files of an artifact have names of their own on every disk.

    Raises:
        StoreError: two have names that are one on a Mac.
    """
    found = collision(paths)
    if found:
        raise StoreError(
            f"{step}: {found[0]!r} and {found[1]!r} are the same name on disks that "
            "ignore case and Unicode normalization, as on a Mac", hint="rename one of the files",
        )
