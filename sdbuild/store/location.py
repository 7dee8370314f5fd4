"""Folders in which a store may be created."""

from __future__ import annotations

from pathlib import Path

from sdbuild.base.errors import StoreError
from sdbuild.base.filenames import is_system_file
from sdbuild.store.disk import file_error

_OWN = frozenset({"records", "objects", "locks", "work", "roots", "README.md"})
"""The visible files and folders of a new store."""


def check_place(folder: Path) -> None:
    """A store is only made in an empty folder or a new one: anything else is the user's.

    Raises:
        StoreError: something else stands there.
    """
    hint = "choose another location with cache=FOLDER"
    try:
        found = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise StoreError(f"{folder}: not a folder, expected that of a store", hint=hint) from error
    except OSError as error:
        raise file_error(error, folder) from error
    names = {name for name in found if name[0] != "." and not is_system_file(name)}
    if names - _OWN and not names & _OWN:
        raise StoreError(
            f"{folder}: holds {', '.join(sorted(names)[:3])} and no store, so it is left alone",
            hint=hint,
        )
